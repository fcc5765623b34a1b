"""The trace norm of the tasks' heads: its value, its slope, what it makes of tasks that are equal."""

import pytest
import torch

from hf_mtl import InputError
from hf_mtl.modeling.task_tensors import Carried
from tests.conftest import TASKS, build_model, random_batch, randomise

NUMBERS = [{**TASKS[3], "name": name} for name in ("low", "middle", "high")]


def parts(model):
    return model.mtl.trace_norm(Carried(model.mtl.heads))


def heads_of(model):
    """All heads' weights, one row per output, by each head's own tensors."""
    return torch.cat([tensor for head in model.mtl.heads.values() for tensor in head.weight.parameters()])


def test_the_parts_add_up_to_the_sum_of_singular_values():
    """S3.18: |W|_* of all tasks' outputs side by side, whatever their problem types and numbers of labels."""
    model = randomise(build_model(trace_norm=0.3))
    expected = 0.3 * torch.linalg.matrix_norm(heads_of(model).double(), "nuc")
    torch.testing.assert_close(parts(model).sum().double(), expected, atol=1e-5, rtol=1e-5)
    assert parts(build_model()) is None


def test_a_tasks_part_has_the_norms_slope_by_its_own_head():
    """S3.18: U V^T, as autograd finds it of the singular values."""
    model = randomise(build_model(trace_norm=1.0))
    torch.linalg.matrix_norm(heads_of(model), "nuc").backward()
    own = {name: tensor for name, tensor in model.mtl.heads.named_parameters() if ".weight." in name}
    slopes = {name: tensor.grad.clone() for name, tensor in own.items()}
    for index, task in enumerate(TASKS):
        model.zero_grad()
        parts(model)[index].backward()
        for name, tensor in own.items():
            if name.endswith(f"task_{task['name']}"):
                torch.testing.assert_close(tensor.grad, slopes[name], atol=1e-4, rtol=1e-4)
            else:
                assert tensor.grad is None or not tensor.grad.any(), (task["name"], name)


def test_equal_tasks_have_a_matrix_of_rank_1():
    """S3.18: |W|_* of n equal rows w is sqrt(n) |w|; directions without size have no slope."""
    model = build_model(NUMBERS, trace_norm=1.0)
    weights = list(model.mtl.heads["regression"].weight.parameters())
    row = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for tensor in weights:
            tensor.copy_(row)
    total = parts(model).sum()
    torch.testing.assert_close(total, 3**0.5 * row.norm())
    total.backward()
    for tensor in weights:
        torch.testing.assert_close(tensor.grad, row / row.norm() / 3**0.5, atol=1e-5, rtol=1e-5)


def test_it_draws_tasks_into_few_directions():
    """S3.18: of noisy targets that lie in one direction, the smallest singular values go first."""
    generator = torch.Generator().manual_seed(0)
    model = build_model(NUMBERS, trace_norm=1.0)
    weights = list(model.mtl.heads["regression"].weight.parameters())
    shared = torch.randn(1, 32, generator=generator)
    targets = [shared + 0.2 * torch.randn(1, 32, generator=generator) for _ in weights]
    optimizer = torch.optim.SGD(weights, lr=0.05)
    for _ in range(300):
        loss = sum((tensor - target).square().sum() / 2 for tensor, target in zip(weights, targets))
        (loss + parts(model).sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
    before, after = (torch.linalg.svdvals(torch.cat(rows).detach()) for rows in (targets, weights))
    # The minimum shrinks each singular value by the weight, to 0 at least.
    torch.testing.assert_close(after, (before - 1.0).clamp(min=0.0), atol=0.06, rtol=0.0)
    assert after[1] < 0.3 * before[1] and after[0] > 0.8 * before[0]


def test_the_loss_has_each_labelled_rows_part():
    """S3.11, S3.18: a row adds its task's part, so the penalty's mean is weighted as the tasks' losses are."""
    model, batch = randomise(build_model(trace_norm=0.5)), random_batch()
    plain = randomise(build_model())
    found, expected = model(**batch), plain(**batch)
    rows = expected.task_row_counts
    torch.testing.assert_close(found.loss - expected.loss, (parts(model) * rows).sum() / rows.sum())


def test_heads_that_answer_by_word_embeddings_have_none():
    words = {"name": "words", "problem_type": "masked_language_modeling"}
    with pytest.raises(InputError, match="trace_norm=0.5 compares the weights"):
        build_model([words], trace_norm=0.5)
    both, plain = (build_model(tasks, trace_norm=0.5) for tasks in ([words, *NUMBERS], NUMBERS))
    with torch.no_grad():
        for tensor, other in zip(*(model.mtl.heads["regression"].weight.parameters() for model in (both, plain))):
            tensor.copy_(other)
    torch.testing.assert_close(parts(both)[1:], parts(plain))
    assert not parts(both)[0]


def test_a_negative_weight_is_named():
    with pytest.raises(InputError, match="trace_norm=-1"):
        build_model(trace_norm=-1)
