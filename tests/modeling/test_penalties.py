"""What parts add to the loss of a row for a task: the adversary, the overlap of states, scores, entropy."""

import itertools
import math

import pytest
import torch

from hf_mtl import MultiTaskTrainer, MultiTaskTrainingArguments
from hf_mtl.modeling.adversary import GradientReversal
from tests.conftest import TASKS, build_model, random_batch, randomise, with_weights_of
from tests.modeling.test_limit_battery import HIDDEN, T, build, states_and_embeddings
from tests.training.test_step_loss import datasets, specs, step_gradients

PENALISED = [
    {"task_interaction": "shared_private"},
    {"task_interaction": "cross_task_attention", "relation_penalty": 0.3},
    {"task_interaction": "cross_task_attention", "relation_penalty": 0.3, "interaction_layers": 2},
    {"pooling_entropy": 0.2},
    {"trace_norm": 0.1, "task_interaction": "mran", "relation_penalty": 0.1, "parameter_penalty": 0.01},
    {"task_interaction": "shared_private", "pooling_entropy": 0.2},
]


def test_gradients_are_reversed_and_states_are_not():
    """S2.5, and the ramp of its strength."""
    reversal, states = GradientReversal(), torch.randn(3, 4, requires_grad=True)
    for progress, strength in ((0.0, 0.0), (0.1, math.tanh(0.5)), (1.0, math.tanh(5.0))):
        reversal.progress.fill_(progress)
        assert reversal.strength().item() == pytest.approx(strength)
        assert torch.equal(reversal(states), states)
        (gradient,) = torch.autograd.grad((reversal(states) * torch.arange(4)).sum(), states)
        torch.testing.assert_close(gradient, -strength * torch.arange(4.0).expand(3, -1))


def test_what_says_nothing_of_the_task_costs_log_t():
    """S2.5: 2.7726 for 16 tasks."""
    part = build("shared_private", {"orthogonality_weight": 0.0, "adversarial_weight": 1.0}).mtl.interaction
    with torch.no_grad():
        for tensor in part.discriminator.outer.parameters():
            tensor.zero_()
    torch.testing.assert_close(part.penalties(*states_and_embeddings()), torch.full((3, T), math.log(T)))


def test_states_that_are_orthogonal_cost_nothing():
    """S2.5: orthogonal P and S give 0, equal ones 1."""
    part = build("shared_private", {"orthogonality_weight": 2.0, "adversarial_weight": 0.0}).mtl.interaction
    states, embeddings = states_and_embeddings()
    part._extracted = lambda given: (
        torch.eye(HIDDEN)[1 : T + 1].expand(3, -1, -1),
        torch.eye(HIDDEN)[:1].expand(3, 1, -1),
    )
    assert not part.penalties(states, embeddings).any()
    part._extracted = lambda given: (states, states)
    torch.testing.assert_close(part.penalties(states, embeddings), torch.full((3, T), 2.0))


def test_the_adversary_works_against_the_shared_extractor_alone():
    """S2.5: the discriminator descends on what the extractor ascends on; private extractors hear nothing of it."""
    part = build("shared_private", {"orthogonality_weight": 0.0}).mtl.interaction
    gradients = {}
    for strength in (0.0, 1.0):
        part.reversal.strength = lambda strength=strength: torch.tensor(-strength)
        part.zero_grad()
        part.penalties(*states_and_embeddings()).sum().backward()
        gradients[strength] = {name: own.grad for name, own in part.named_parameters() if own.grad is not None}
    part.reversal.strength = lambda: torch.tensor(1.0)
    part.zero_grad()
    part.penalties(*states_and_embeddings()).sum().backward()
    for name, own in part.named_parameters():
        if name.startswith("discriminator"):
            torch.testing.assert_close(own.grad, gradients[1.0][name])
        elif name.startswith("shared"):
            torch.testing.assert_close(own.grad, -gradients[1.0][name])
            assert not gradients[0.0][name].any()
        else:
            assert own.grad is None or not own.grad.any() or name.startswith("norm")


def test_without_weights_the_loss_is_the_tasks_alone():
    """S2.5: both weights 0 give plain shared and private extractors."""
    batch = random_batch()
    model = build("shared_private", {"adversarial_weight": 0.0, "orthogonality_weight": 0.0})
    weighed = with_weights_of(build("shared_private"), model)
    assert not model(**batch).task_penalty_sums.any()
    assert model(**batch).loss < weighed(**batch).loss
    torch.testing.assert_close(model(**batch).task_loss_sums, weighed(**batch).task_loss_sums)


def test_attention_scores_are_penalised_by_their_squares():
    """S3.11."""
    part = build("cross_task_attention", {"relation_penalty": 0.5, "attention_scorer": "general"}).mtl.interaction
    states, embeddings = states_and_embeddings()
    found = part.penalties(states, embeddings)
    for row, task in itertools.product(range(len(states)), range(T)):
        readable = part.readable.norm(states[row]) + embeddings
        scores = [part.scorer(readable[task : task + 1], other[None]).item() for other in readable]
        assert found[row, task].item() == pytest.approx(0.5 * sum(score**2 for score in scores), rel=1e-4)


def test_a_heavy_penalty_on_scores_makes_attention_even():
    """S3.11: gamma to infinity, S to 0."""
    part = build("cross_task_attention", {"relation_penalty": 100.0}).mtl.interaction
    optimizer = torch.optim.Adam(part.scorer.parameters(), lr=0.02)
    for _ in range(200):
        optimizer.zero_grad()
        part.penalties(*states_and_embeddings()).mean().backward()
        optimizer.step()
    even = part.task_weights(torch.zeros(1, 4, T, T))
    torch.testing.assert_close(part.weights(*states_and_embeddings()), even.expand(3, -1, -1, -1), atol=0.02, rtol=0)


def test_a_heavy_weight_on_entropy_makes_attention_even():
    """S1.7: lambda to infinity, the entropy to log L."""
    model = build("none", {"pooling_entropy": 1.0})
    seen = []
    model.mtl.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    model(**random_batch())
    tokens = seen[0]._replace(states=seen[0].states.detach())
    part = model.mtl.pooling
    optimizer = torch.optim.Adam(part.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        part.penalties(tokens).mean().backward()
        optimizer.step()
    expected = -tokens.mask.sum(dim=1, keepdim=True).float().log().expand(-1, T)
    torch.testing.assert_close(part.penalties(tokens), expected, atol=0.02, rtol=0)


@pytest.mark.parametrize("settings", PENALISED, ids=str)
def test_only_rows_with_labels_count_and_each_for_its_task(settings):
    """The model's loss is that of its tasks and the mean penalty over (row, task) pairs with a label."""
    model, batch = randomise(build_model(**settings)), random_batch()
    output = model(**batch)
    seen = []
    model.mtl.register_forward_hook(lambda module, given, found: seen.append((given[0], found.states)))
    model(**batch)
    penalties = model.mtl.penalties(*seen[0])
    expected = torch.zeros(T)
    for entries in batch["routing"].values():
        for place, task in enumerate(entries["tasks"].tolist()):
            row = entries["rows"][place]
            if (entries["labels"][place] != -100).any():
                expected[task] += penalties[int(row if row.ndim == 0 else row[0]), task]
    torch.testing.assert_close(output.task_penalty_sums, expected)
    tasks_alone = sum(
        output.task_loss_sums[t] / output.task_label_counts[t].clamp(min=1) * output.task_row_counts[t]
        for t in range(T)
    )
    rows = output.task_row_counts.sum()
    torch.testing.assert_close(output.loss, (tasks_alone + expected.sum()) / rows)


def penalised_trainer(tmp_path, tokenizer, settings, balancing=None, **arguments) -> MultiTaskTrainer:
    tasks = [
        {"name": "mood", "problem_type": "single_label_classification", "labels": ["no", "yes"]},
        {"name": "stars", "problem_type": "regression"},
        {"name": "tags", "problem_type": "token_classification", "labels": ["O", "B-X"]},
    ]
    model = randomise(build_model(tasks, vocab_size=tokenizer.vocab_size, **settings)).double()
    args = MultiTaskTrainingArguments(output_dir=str(tmp_path), use_cpu=True, disable_tqdm=True, **arguments)
    return MultiTaskTrainer(
        model, args, train_dataset=datasets(), tasks=specs(), processing_class=tokenizer, gradient_balancing=balancing
    )


@pytest.mark.parametrize("settings", PENALISED, ids=str)
def test_accumulated_batches_give_the_same_gradients(settings, tmp_path, tokenizer):
    own = penalised_trainer(tmp_path, tokenizer, settings)
    rows = [0, 1, 24, 36, 2, 37, 38, 40, 3, 4, 5, 6, 25, 26, 39, 7]
    whole, split = step_gradients(own, rows, 1), step_gradients(own, rows, 4)
    assert whole.keys() == split.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(gradient, split[name], atol=1e-10, rtol=0, msg=name)


def test_a_run_tells_the_adversary_how_far_it_is(tmp_path, tokenizer):
    own = penalised_trainer(tmp_path, tokenizer, PENALISED[0], max_steps=4)
    reversal = own.model.mtl.interaction.reversal
    seen = []
    reversal.register_forward_hook(lambda module, given, output: seen.append(module.progress.item()))
    own.train()
    assert seen == [0.0, 0.25, 0.5, 0.75]
    assert "gradients" not in {finding.check for finding in own.doctor().findings}


def test_balanced_gradients_hear_of_penalties(tmp_path, tokenizer):
    """With equal weights a balanced step is the gradient of the sum of the tasks' means, penalties included."""
    settings = {"per_device_train_batch_size": 2, "gradient_balancing": None}
    own = penalised_trainer(
        tmp_path, tokenizer, PENALISED[0], balancing=lambda gram: torch.ones(len(gram)).double(), **settings
    )
    batch = own.data_collator([own.train_dataset[row] for row in (0, 1, 24, 25, 36, 37)])
    labels, rows = counts = own._get_num_items_in_batch([batch], torch.device("cpu"))
    own.model.zero_grad()
    output = own.model.train()(**batch)
    weights = torch.tensor([1.0, 1.0, 2.0])  # the tags' own is 2
    (weights * (output.task_loss_sums / labels + output.task_penalty_sums / rows)).sum().backward()
    expected = {name: tensor.grad.clone() for name, tensor in own.model.named_parameters() if tensor.grad is not None}
    own.model.zero_grad()
    own.training_step(own.model, batch, counts)
    for name, tensor in own.model.named_parameters():
        if name in expected:
            torch.testing.assert_close(tensor.grad, expected[name], atol=1e-10, rtol=0, msg=name)


def test_scores_of_tasks_that_are_not_read_cost_nothing():
    tasks = [{**task, "reads": []} for task in TASKS]
    model = build("cross_task_attention", {"relation_penalty": 1.0}, tasks)
    part, (states, embeddings) = model.mtl.interaction, states_and_embeddings()
    before = part.penalties(states, embeddings)[:, 0]
    others = torch.randn_like(states)
    others[:, 0] = states[:, 0]
    assert torch.equal(part.penalties(others, embeddings)[:, 0], before)


def test_a_task_of_weight_0_adds_nothing(tmp_path, tokenizer):
    own = penalised_trainer(tmp_path, tokenizer, PENALISED[0])
    own.loss_weighting.fixed_weights[0] = 0.0
    batch = own.data_collator([own.train_dataset[row] for row in (0, 1, 2)])
    counts = own._get_num_items_in_batch([batch], torch.device("cpu"))
    own.compute_loss(own.model.train(), batch, num_items_in_batch=counts).backward()
    assert not any(tensor.grad.any() for tensor in own.model.parameters() if tensor.grad is not None)
