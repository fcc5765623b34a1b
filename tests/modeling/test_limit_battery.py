"""What must hold for every interaction, from the table of interactions itself, so that one added later is tested too.

Numbers LB-1 to LB-13 are the limits that every part which mixes tasks must keep.
"""

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from hf_mtl import InputError
from hf_mtl.modeling.attention_scorers import ATTENTION_SCORERS
from hf_mtl.modeling.gate import TASK_GATES
from hf_mtl.modeling.interaction import TASK_INTERACTIONS
from hf_mtl.modeling.pooling import TASK_POOLINGS
from tests.conftest import (
    TASKS,
    build_model,
    encoder_inputs,
    random_batch,
    randomise,
    unmoved_after,
    with_weights_of,
)

HIDDEN, T = 32, len(TASKS)
# Settings under which an interaction becomes another computation; each name's plain form is tested as well.
SETTINGS = {
    "cross_task_attention": [
        *({"attention_scorer": name} for name in ATTENTION_SCORERS),
        {"signed_attention": True},
        {"task_affinities": True},
        {"interaction_layers": 2},
        {"interaction_size": 16},
        {"attention_top_k": 2},
    ],
    "attention_over_heads": [*({"attention_scorer": name} for name in ATTENTION_SCORERS), {"branch": "linear"}],
    "induced_attention": [*({"attention_scorer": name} for name in ATTENTION_SCORERS), {"interaction_size": 16}],
    "mran": [
        *({"attention_scorer": name} for name in ATTENTION_SCORERS),
        *({"mran_relations": [name]} for name in ("task_task", "feature_feature", "task_feature")),
        {"mran_relations": ["task_task", "feature_feature"]},
        {"relation_mixing": "rescale", "attention_scorer": "general"},
        {"relation_norm": "batch"},
    ],
    "ple": [{"interaction_layers": 2}],
}
MIXING = [name for name in TASK_INTERACTIONS if name != "none"]
CASES = [
    pytest.param(name, settings, id="-".join([name, *map(str, itertools.chain(*settings.items()))]))
    for name in MIXING
    for settings in [{}, *SETTINGS.get(name, [])]
]
every_case = pytest.mark.parametrize(("name", "settings"), CASES)


def build(name, settings=None, tasks=None, random=True, **more):
    model = build_model(tasks, task_interaction=name, **(settings or {}), **more)
    return randomise(model) if random else model


def states_and_embeddings(batch=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    states, embeddings = (torch.randn(*size, HIDDEN, generator=generator) for size in ((batch, T), (T,)))
    return states.to(dtype), embeddings.to(dtype)


SCORING = ("scorer", "gate", "task_weights", "query", "key", "points")


def without_preferences(part):
    """Set to zero all that makes one task or expert score higher than another."""
    with torch.no_grad():
        for name, tensor in part.named_parameters():
            if any(word in name for word in SCORING):
                tensor.zero_()
            if "self_bias" in name:
                tensor.fill_(-math.log(T - 1))
    return part


@every_case
def test_zero_scores_give_equal_weights(name, settings):
    """LB-1, S4.3: scores of 0 give 1/n each."""
    part = without_preferences(build(name, settings).mtl.interaction)
    weights = part.weights(*states_and_embeddings())
    rescales = settings.get("relation_mixing") == "rescale"
    if weights is None or name == "cross_stitch" or settings.get("signed_attention") or rescales:
        pytest.skip("its weights are no softmax of each row")
    if settings.get("attention_scorer") == "dot_product":
        pytest.skip("it has no parameters to be zero")
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / weights.shape[-1]))


@every_case
@pytest.mark.parametrize("gate", TASK_GATES)
def test_the_start_is_hard_sharing_bit_for_bit(name, settings, gate):
    """LB-2, S0.10, S2.2, S2.13, S4.3: residuals that end in a zero; S3.16: each relation of MRAN, alone too."""
    model = build(name, settings, random=False, gate=gate)
    expected = with_weights_of(build_model(task_interaction="none"), model)(**encoder_inputs()).logits
    for task, logits in model(**encoder_inputs()).logits.items():
        assert torch.equal(logits, expected[task]), task


@every_case
def test_every_tensor_wakes_up(name, settings):
    """What starts closed opens: no path ends in two zeros."""
    assert not unmoved_after(build(name, settings, random=False))


@pytest.mark.parametrize("name", ["cross_task_attention", "attention_over_heads", "head_groups"])
def test_a_task_that_prefers_itself_reads_itself_alone(name):
    """LB-3, S0.2, S4.3, S0.19: by the bias, and by dropping all other tasks while training."""
    states, embeddings = states_and_embeddings()
    part = build(name).mtl.interaction
    with torch.no_grad():
        for key in part.task_weights.self_bias.keys:
            part.task_weights.self_bias.get_parameter(key).fill_(60.0)
    weights = part.weights(states, embeddings)
    torch.testing.assert_close(weights, torch.eye(T).expand_as(weights))
    dropping = build(name, task_dropout=1.0).mtl.interaction
    assert not torch.allclose(dropping.weights(states, embeddings), weights)
    torch.testing.assert_close(dropping.train().weights(states, embeddings), weights)
    if name == "attention_over_heads":
        branches = part.branches(states)
        expected = part.values.output(part.values.value(branches))
        torch.testing.assert_close(part.mix(states, embeddings), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("name", TASK_INTERACTIONS)
def test_answers_to_some_tasks_are_those_to_all(name, layers):
    """LB-11: whatever the interaction, stacked or not, rows are computed for the tasks asked alone."""
    model = build(name, {"interaction_layers": layers}, TASKS[:2])
    head, inputs, rows = model.mtl.heads["single_label_classification"], encoder_inputs(), torch.arange(8)
    expected = model(**inputs).logits
    for task, key in enumerate(expected):
        asked_tasks = torch.full((8, 1), task)
        entries = {"rows": rows, "tasks": asked_tasks[:, 0], "slots": torch.zeros_like(rows)}
        found = model(**inputs, routing={head.problem_type: entries}, asked_tasks=asked_tasks).entry_logits[
            head.problem_type
        ]
        torch.testing.assert_close(found[:, : expected[key].shape[1]], expected[key], atol=1e-5, rtol=1e-5)


@every_case
def test_one_task_is_the_single_task_model(name, settings):
    """LB-4."""
    model = build(name, settings, [TASKS[1]])
    alone = with_weights_of(build_model([TASKS[1]], task_interaction="none"), model)
    assert model.mtl.state_dict().keys() == alone.mtl.state_dict().keys()
    assert torch.equal(model(**encoder_inputs()).logits["mood"], alone(**encoder_inputs()).logits["mood"])


@every_case
def test_task_order_changes_nothing(name, settings):
    """LB-5, S4.3."""
    model = build(name, settings)
    permuted = with_weights_of(build(name, settings, copy.deepcopy(TASKS[::-1])), model)
    expected = model(**encoder_inputs()).logits
    for task, logits in permuted(**encoder_inputs()).logits.items():
        torch.testing.assert_close(logits, expected[task], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("pooling", TASK_POOLINGS)
def test_padding_changes_nothing(pooling):
    """LB-6."""
    model, batch = randomise(build_model(pooling=pooling)), encoder_inputs()
    longer = {key: F.pad(value, (0, 7)) for key, value in batch.items()}
    expected = model(**batch).logits
    for task, logits in model(**longer).logits.items():
        if task not in ("names", "span"):
            torch.testing.assert_close(logits, expected[task], atol=1e-5, rtol=1e-5)


@every_case
def test_rows_do_not_read_each_other(name, settings):
    """LB-7, S3.0, which MRAN as published violates."""
    part, (states, embeddings) = build(name, settings).mtl.interaction, states_and_embeddings()
    together = part(states, embeddings)
    for row in range(len(states)):
        torch.testing.assert_close(part(states[row : row + 1], embeddings)[0], together[row], atol=1e-5, rtol=1e-5)


@every_case
def test_gradients_are_those_of_differences(name, settings):
    """LB-9."""
    part = build(name, settings).double().mtl.interaction
    states, embeddings = states_and_embeddings(1, torch.float64)
    inputs = (states.requires_grad_(), embeddings.requires_grad_())
    assert torch.autograd.gradcheck(part, inputs, fast_mode=True)


@every_case
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_weights_are_shares(name, settings, dtype, tolerance):
    """LB-10."""
    part = build(name, settings).to(dtype).mtl.interaction
    weights = part.weights(*states_and_embeddings(dtype=dtype))
    if weights is None or name == "cross_stitch" or settings.get("relation_mixing") == "rescale":
        pytest.skip("it weighs no tasks, or by free numbers, or the tasks together")
    total = weights.abs().float().sum(dim=-1) if settings.get("signed_attention") else weights.float().sum(dim=-1)
    torch.testing.assert_close(total, torch.ones_like(total), atol=tolerance, rtol=0)
    assert settings.get("signed_attention") or weights.min() >= 0


@every_case
def test_answering_some_tasks_answers_them_alike(name, settings):
    """LB-11."""
    model, batch = build(name, settings), random_batch()
    routing = {"regression": batch["routing"]["regression"]}
    alone = model(batch["input_ids"], batch["attention_mask"], routing=routing).entry_logits["regression"]
    every = model(batch["input_ids"], batch["attention_mask"]).logits["stars"]
    torch.testing.assert_close(alone.squeeze(-1), every[routing["regression"]["rows"]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MIXING)
def test_a_task_reads_only_what_it_may(name):
    """A task that reads none but itself is answered alike whatever the others' parameters are."""
    tasks = copy.deepcopy(TASKS)
    tasks[0]["reads"], tasks[1]["reads"] = [], ["flags"]
    for task in tasks[2:]:
        task["reads"] = ["flags"]
    if name == "induced_attention":
        with pytest.raises(InputError, match="induced_attention mixes all tasks"):
            build(name, tasks=tasks)
        return
    if name in ("omoe", "mmoe", "cgc", "ple", "shared_private", "mran"):
        # Shared experts and features read the tasks that all may read, so one must be.
        with pytest.raises(InputError, match="`reads` leaves none"):
            build(name, tasks=tasks)
        tasks[0]["reads"] = ["flags"]
    model = build(name, tasks=tasks)
    before = model(**encoder_inputs()).logits
    with torch.no_grad():
        for tensor in model.task_parameters("stars"):
            tensor.add_(1.0)
    after = model(**encoder_inputs()).logits
    for task in ("intent", "mood", "flags"):
        assert torch.equal(before[task], after[task]), task
    assert not torch.equal(before["stars"], after["stars"])


@every_case
def test_attentions_are_returned_when_asked(name, settings):
    output = build(name, settings)(**encoder_inputs(), output_task_attentions=True)
    if name in ("shared_private", "residual_streams") or settings.get("mran_relations") in (
        ["feature_feature"],
        ["task_feature"],
    ):
        assert output.interaction_weights is None
    elif name in ("omoe", "mmoe", "cgc", "ple"):
        assert output.interaction_weights.shape[:2] == (8, T)
    else:
        assert output.interaction_weights.shape[0] == 8
        assert output.interaction_weights.shape[2:] == (T, T)


def test_cross_stitch_is_attention_whose_logits_are_log_alpha():
    """LB-12, S2.4, S3.13."""
    states, embeddings = states_and_embeddings()
    alphas = torch.rand(T, T).softmax(dim=1)
    stitch = build("cross_stitch").mtl.interaction
    part = without_preferences(
        build("attention_over_heads", task_affinities=True, attention_scorer="general").mtl.interaction
    )
    order = sorted(range(T), key=lambda task: TASKS[task]["name"])
    with torch.no_grad():
        for task, own in enumerate(TASKS):
            stitch.alphas.get_parameter(f"task_{own['name']}").copy_(alphas[task, order])
            part.task_weights.affinities.get_parameter(f"task_{own['name']}").copy_(alphas[task, order].log())
    torch.testing.assert_close(stitch.mix(states, embeddings), alphas @ states)
    torch.testing.assert_close(part.mix(states, embeddings), alphas @ part.branches(states))


def test_the_gate_of_mmoe_is_attention_with_parameters_as_keys():
    """LB-13, S2.4, S3.14."""
    part, (states, embeddings) = build("mmoe").mtl.interaction, states_and_embeddings()
    (layer,) = part.layers
    tasks = part.norm(states)
    experts = layer.shared(tasks.mean(dim=1)).unsqueeze(1).expand(-1, T, -1, -1)
    keys = layer.gates().expand(len(states), -1, -1, -1)
    expected = F.scaled_dot_product_attention(tasks.unsqueeze(2), keys, experts, scale=1.0).squeeze(2)
    torch.testing.assert_close(part.mix(states, embeddings), expected, atol=1e-5, rtol=1e-5)
