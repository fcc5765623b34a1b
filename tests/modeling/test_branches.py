"""Branches H_i, linear, of two layers, convolutional or recurrent: their formulas, and their place in the mixture."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig

from hf_mtl import InputError
from hf_mtl.modeling.branch import TASK_BRANCHES, expert_size
from hf_mtl.modeling.configuration_multitask import MultiTaskAttentionConfig
from hf_mtl.modeling.encoder_tensors import EncodedTokens
from tests.conftest import (
    TASKS,
    build_model,
    encoder_inputs,
    own_experts,
    random_batch,
    randomise,
    unmoved_after,
    with_weights_of,
)
from tests.modeling.test_pooling import HIDDEN, T, close, encoded

every_branch = pytest.mark.parametrize("name", TASK_BRANCHES)


def model_of(name, tasks=None, **settings):
    return randomise(build_model(tasks, task_interaction="attention_over_heads", branch=name, **settings))


def states_of(tokens):
    return torch.randn(len(tokens.mask), T, HIDDEN, generator=torch.Generator().manual_seed(5))


def by_hand(branch, name, task, state, words):
    """A task's branch of one row: its state (hidden,) and its words (length, hidden)."""
    key = f"task_{TASKS[task]['name']}"
    own = {
        tensors: getattr(branch, tensors).get_parameter(key)
        for tensors in ("output", "output_bias")
        if name != "layer"
    }
    if name == "linear":
        return own["output"] @ state + own["output_bias"]
    if name == "layer":
        return own_experts(branch.layers, key, state)[0]
    if name == "convolution":
        kernel = branch.kernel.get_parameter(key).view(-1, HIDDEN, 3)
        padded = F.pad(words, (0, 0, 1, 1))
        places = [
            F.gelu(
                torch.einsum("sdk,kd->s", kernel, padded[place : place + 3]) + branch.kernel_bias.get_parameter(key)
            )
            for place in range(len(words))
        ]
        summary = torch.stack(places).amax(dim=0)
    else:
        summary = torch.cat([network(one, key)(ordered[None])[1][0, 0] for one, ordered in both_ways(branch, words)])
    return own["output"] @ summary + own["output_bias"]


def both_ways(branch, words):
    return [(branch.forwards, words), (branch.backwards, words.flip(0))]


def network(recurrence, key):
    """A torch.nn.GRU with a task's weights."""
    found = nn.GRU(HIDDEN, recurrence.size, batch_first=True)
    tensors = (recurrence.of_inputs, recurrence.of_state, recurrence.of_inputs_bias, recurrence.of_state_bias)
    with torch.no_grad():
        for tensor, own in zip(found.parameters(), tensors):
            tensor.copy_(own.get_parameter(key))
    return found


@every_branch
def test_a_branch_is_its_formula(name):
    """S0.7: by loops over rows and tasks; recurrent ones against torch.nn.GRU on each text without its padding."""
    tokens = encoded()
    branch, states = model_of(name).mtl.interaction.branch, states_of(tokens)
    found = branch(states, tokens)
    for row, mask in enumerate(tokens.mask):
        words = tokens.states[row, : int(mask.sum())]
        for task in range(T):
            close(found[row, task], by_hand(branch, name, task, states[row, task], words))


@every_branch
def test_a_branch_of_asked_tasks_is_theirs(name):
    """LB-11."""
    tokens = encoded()
    branch, states = model_of(name).mtl.interaction.branch, states_of(tokens)
    asked_tasks = torch.tensor([[0, 3], [2, 1], [5, 0], [4, 4]])
    rows = torch.arange(4).unsqueeze(1)
    close(branch(states[rows, asked_tasks], tokens, asked_tasks), branch(states, tokens)[rows, asked_tasks])


@every_branch
def test_a_view_for_each_task_is_read_by_its_task(name):
    """Where rows are encoded by task, a task's network reads what was encoded for it."""
    branch, views = model_of(name).mtl.interaction.branch, [encoded(seed) for seed in range(T)]
    states = states_of(views[0])
    rows = [torch.stack(list(of_tasks)).flatten(0, 1) for of_tasks in zip(*[(one.states, one.mask) for one in views])]
    ordered = torch.arange(T * 4).view(T, 4).T.flatten()
    found = branch(states, EncodedTokens(rows[0][ordered], rows[1][ordered]))
    for task, tokens in enumerate(views):
        close(found[:, task], branch(states, tokens)[:, task])


@every_branch
def test_the_mixture_sums_branches(name):
    """S0.3, S0.7: sum_i a_ti H_i of what each branch reads, in the whole model."""
    model = model_of(name, attention_scorer="general")
    seen = []
    model.mtl.interaction.register_forward_hook(lambda part, given, output: seen.append((given, output)))
    model(**encoder_inputs())
    (states, embeddings, _, tokens), mixed = seen[0]
    part = model.mtl.interaction
    branches = part.branch(part.norm(states), tokens)
    sums = torch.einsum("bti,bid->btd", part.weights(states, embeddings, tokens)[:, 0], branches)
    close(mixed, states + part.scale().tanh() * (sums - states))
    if part.branch.reads_tokens:
        with pytest.raises(InputError, match="reads token states"):
            part.mix(states, embeddings)


@every_branch
def test_the_start_is_hard_sharing_bit_for_bit(name):
    """LB-2, whatever the branch."""
    model = build_model(task_interaction="attention_over_heads", branch=name)
    expected = with_weights_of(build_model(task_interaction="none"), model)(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task


@pytest.mark.parametrize("name", ["convolution", "recurrent"])
def test_every_tensor_wakes_up(name):
    assert not unmoved_after(build_model(task_interaction="attention_over_heads", branch=name))


@every_branch
def test_a_task_without_labels_keeps_its_branch(name):
    model, batch = model_of(name, [{**task, "reads": []} for task in TASKS]), random_batch()
    routing = {"regression": batch["routing"]["regression"]}
    model(batch["input_ids"], batch["attention_mask"], routing=routing).loss.backward()
    by_task = {task["name"]: list(model.task_parameters(task["name"])) for task in TASKS}
    assert all(own.grad is None or not own.grad.any() for name in ("intent", "mood") for own in by_task[name])
    branch = dict(model.mtl.interaction.branch.named_parameters())
    assert all(own.grad.any() for name, own in branch.items() if name.endswith("task_stars"))


def test_branches_are_different_computations():
    found = [model_of(name)(**encoder_inputs()).logits["intent"] for name in TASK_BRANCHES]
    for place, first in enumerate(found):
        assert all((first - second).abs().max() > 1e-4 for second in found[:place])


def test_an_unknown_branch_is_named():
    with pytest.raises(InputError, match="branch"):
        model_of("convolutional")


@pytest.mark.parametrize("setting", ["branch", "head"])
@pytest.mark.parametrize("name", ["convolution", "recurrent"])
def test_a_choice_that_a_row_does_not_have_breaks_nothing(setting, name):
    """Its row has no token; losses and gradients stay numbers."""
    model = randomise(
        build_model([TASKS[6], TASKS[0]], task_interaction="attention_over_heads", **{setting: name})
    ).train()
    mask = torch.ones(2, 3, 10).long()
    mask[1, 2] = 0
    ids = torch.randint(1, 59, (2, 3, 10), generator=torch.Generator().manual_seed(0))
    loss = model(input_ids=ids, attention_mask=mask, labels={"pick": torch.tensor([0, 1])}).loss
    loss.backward()
    assert loss.isfinite()
    assert all(own.grad is None or own.grad.isfinite().all() for own in model.parameters())


def test_a_narrow_encoder_has_a_network_in_both_directions():
    assert expert_size(MultiTaskAttentionConfig(encoder_config=BertConfig(hidden_size=6, num_attention_heads=2))) == 2
