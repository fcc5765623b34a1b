"""Losses and gradients too depend neither on padding nor on a batch's order or composition."""

import copy

import pytest
import torch
from torch.nn import functional as F

from hf_mtl.modeling.encoder_tensors import EncodedTokens
from tests.conftest import TASKS, build_model, random_batch, randomise


def padded(batch: dict, extra: int, left: bool = False) -> dict:
    """The batch with more padding, whose word pieces are not those of padding."""
    size = (extra, 0) if left else (0, extra)
    more = copy.deepcopy(batch)
    more["input_ids"] = F.pad(batch["input_ids"], size, value=7)
    more["attention_mask"] = F.pad(batch["attention_mask"], size)
    spans, tags = (more["routing"][name] for name in ("question_answering", "token_classification"))
    spans["token_mask"] = F.pad(spans["token_mask"], size)
    tags["labels"] = F.pad(tags["labels"], size, value=-100)
    return more


def gradients(model, batch: dict) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: tensor.grad.clone() for name, tensor in model.named_parameters() if tensor.grad is not None}


def test_padding_changes_no_loss_and_no_gradient():
    model, batch = randomise(build_model()), random_batch()
    short, long = model(**batch), model(**padded(batch, 9))
    for name, loss in short.task_losses.items():
        torch.testing.assert_close(long.task_losses[name], loss, atol=1e-5, rtol=0)
    expected = gradients(model, batch)
    for name, gradient in gradients(model, padded(batch, 9)).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-3, msg=name)


def test_what_stands_at_padding_is_not_read():
    model, batch = randomise(build_model()), random_batch()
    other = copy.deepcopy(batch)
    other["input_ids"][batch["attention_mask"] == 0] = 11
    assert not torch.equal(batch["input_ids"], other["input_ids"])
    torch.testing.assert_close(model(**other).loss, model(**batch).loss, atol=1e-6, rtol=0)


@pytest.mark.parametrize("pooling", ["first_token", "last_token", "mean", "task_queries", "layer_mix"])
def test_task_states_with_padding_on_the_left(pooling):
    """Pooling itself, apart from an encoder's positions."""
    model = randomise(build_model(pooling=pooling))
    states, mask = torch.randn(4, 6, 32), torch.tensor([[1] * count + [0] * (6 - count) for count in (6, 5, 3, 1)])
    left = torch.stack([row.roll(6 - int(own.sum()), 0) for row, own in zip(states, mask)])
    expected = model.mtl.pooling(EncodedTokens(states, mask, layers=(states + 1, states)))
    found = model.mtl.pooling(EncodedTokens(left, mask.flip(1), layers=(left + 1, left)))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(expected[0], expected[1], atol=1e-3)


def test_order_and_company_of_rows_change_no_logits():
    model, batch = randomise(build_model()), random_batch()
    ids, mask = batch["input_ids"], batch["attention_mask"]
    expected, order = model(ids, mask).logits, torch.tensor([5, 2, 7, 0, 1, 6, 3, 4])
    shuffled = model(ids[order], mask[order]).logits
    alone = model(ids[3:4], mask[3:4]).logits
    for task in TASKS:
        name = task["name"]
        torch.testing.assert_close(shuffled[name], expected[name][order], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone[name], expected[name][3:4], atol=1e-5, rtol=0)


def test_order_of_entries_changes_no_loss():
    model, batch = randomise(build_model()), random_batch()
    turned = copy.deepcopy(batch)
    for entries in turned["routing"].values():
        entries.update({key: tensor.flip(0) for key, tensor in entries.items()})
    expected, found = model(**batch), model(**turned)
    torch.testing.assert_close(found.task_loss_sums, expected.task_loss_sums, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.task_label_counts, expected.task_label_counts)


def test_holes_in_the_labels_count_nothing():
    """A row whose label is missing adds neither to a task's loss nor to its count."""
    model, batch = randomise(build_model()), random_batch()
    holes, fewer = copy.deepcopy(batch), copy.deepcopy(batch)
    marks = {"regression": float("nan"), "multi_label_classification": -100.0}
    for name, entries in holes["routing"].items():
        entries["labels"][0] = marks.get(name, -100)
        kept = fewer["routing"][name]
        kept.update({key: tensor[1:] for key, tensor in kept.items()})
    found, expected = model(**holes), model(**fewer)
    torch.testing.assert_close(found.task_loss_sums, expected.task_loss_sums, atol=1e-5, rtol=1e-5)
    assert torch.equal(found.task_label_counts, expected.task_label_counts)
    assert torch.equal(found.task_row_counts, expected.task_row_counts)
    assert all(gradient.isfinite().all() for gradient in gradients(model, holes).values())


def test_a_batch_without_any_label_has_no_loss_and_finite_gradients():
    model, batch = randomise(build_model()), random_batch()
    marks = {"regression": float("nan"), "multi_label_classification": -100.0}
    for name, entries in batch["routing"].items():
        entries["labels"] = torch.full_like(entries["labels"], marks.get(name, -100))
    assert model(**batch).loss.item() == 0
    assert all(gradient.abs().sum() == 0 for gradient in gradients(model, batch).values())


def test_a_task_without_rows_gets_no_gradient_of_its_own():
    """Its head, query and embedding stay untouched where no task that has rows reads it."""
    tasks = copy.deepcopy(TASKS)
    for task in tasks:
        task["reads"] = []
    model, batch = randomise(build_model(tasks)), random_batch()
    batch["routing"] = {"regression": batch["routing"]["regression"]}
    found = gradients(model, batch)
    for name, gradient in found.items():
        own = name.rpartition(".")[2]
        if own.startswith("task_") and own != "task_stars":
            assert gradient.abs().sum() == 0, name
    assert found["mtl.heads.regression.weight.task_stars"].abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_agree_roughly(dtype):
    model, batch = randomise(build_model(), std=0.05), random_batch()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    expected = model(**inputs).logits
    found = model.to(dtype)(**inputs).logits
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-4
    for name, logits in found.items():
        torch.testing.assert_close(logits.float(), expected[name], atol=tolerance, rtol=0)


def test_attention_implementations_agree():
    batch = random_batch()
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    found = []
    for attention in ("eager", "sdpa"):
        model = randomise(build_model())
        model.set_attn_implementation(attention)
        assert model.encoder.config._attn_implementation == attention
        found.append(model(**inputs).logits)
    for name, logits in found[0].items():
        rows = inputs["attention_mask"].bool() if logits.dim() == 3 else slice(None)
        torch.testing.assert_close(logits[rows], found[1][name][rows], atol=1e-5, rtol=0)
