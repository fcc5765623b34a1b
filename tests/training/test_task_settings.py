"""What a task's row says of its training: learning rate, patience; and what a run logs of every task."""

import copy

import pytest
import torch

from hf_mtl import TaskSpec
from hf_mtl.training.task_freezing import TaskFreezer
from tests.training.test_step_loss import datasets, specs, trainer


def rows_with(**settings):
    """The tasks of the tiny trainer, settings added to `stars`."""
    return [*specs(), TaskSpec(name="stars", problem_type="regression", **settings)]


def build(tmp_path, tokenizer, monkeypatch, settings, **arguments):
    monkeypatch.setattr("tests.training.test_step_loss.specs", lambda: rows_with(**settings))
    validation = {name: rows.select(range(8)) for name, rows in datasets().items()}
    return trainer(tmp_path, tokenizer, validation=validation, per_device_train_batch_size=8, **arguments)


def test_a_task_has_its_own_learning_rate(tmp_path, tokenizer, monkeypatch):
    own = build(tmp_path, tokenizer, monkeypatch, {"learning_rate": 0.5}, learning_rate=1e-3, max_steps=1)
    own.create_optimizer()
    names = {id(tensor): name for name, tensor in own.model.named_parameters()}
    rates = {names[id(tensor)]: group["lr"] for group in own.optimizer.param_groups for tensor in group["params"]}
    assert len(rates) == len(names)
    for name, rate in rates.items():
        expected = 0.5 if name.endswith(".task_stars") else 1e-2 if name.startswith("mtl.") else 1e-3
        assert rate == expected, name


def test_a_rate_of_nothing_leaves_a_task_where_it_was(tmp_path, tokenizer, monkeypatch):
    own = build(tmp_path, tokenizer, monkeypatch, {"learning_rate": 0}, learning_rate=1e-2, max_steps=3)
    start = copy.deepcopy(own.model.state_dict())
    own.train()
    moved = {name for name, tensor in own.model.state_dict().items() if not torch.equal(tensor, start[name])}
    assert not [name for name in moved if name.endswith(".task_stars")]
    assert [name for name in moved if name.endswith(".task_mood")]


def test_patience_counts_evaluations_without_a_better_score():
    freezer = TaskFreezer({"a": 2}, ["a", "b"])
    found = [freezer.update({"a": score, "b": 0.0}) for score in (50.0, 49.0, 51.0, 51.0, 50.0, 99.0)]
    assert found == [[], [], [], [], ["a"], []]
    assert freezer.frozen == ["a"]
    assert freezer.mask(torch.device("cpu")).tolist() == [0, 1]
    again = TaskFreezer({"a": 2}, ["a", "b"])
    again.load_state(freezer.state())
    assert again.frozen == ["a"]


def test_a_frozen_task_trains_no_more(tmp_path, tokenizer, monkeypatch):
    """It stays bit-equal, pulls no longer on the encoder, and is still scored; the others go on."""
    own = build(
        tmp_path,
        tokenizer,
        monkeypatch,
        {"patience": 1},
        max_steps=6,
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=1e-3,
        weight_decay=0.1,
        logging_steps=1,
    )
    states = []
    evaluate = own._evaluate

    def watched(*arguments, **options):
        metrics = evaluate(*arguments, **options)
        states.append((own.freezer.frozen, copy.deepcopy(own.model.state_dict()), "eval_stars_pearson" in metrics))
        return metrics

    own._evaluate = watched
    monkeypatch.setattr("hf_mtl.training.trainer.source_scores", lambda scores, tasks: {"stars": 1.0})
    own.train()
    assert [frozen for frozen, _, _ in states] == [[], ["stars"], ["stars"], ["stars"], ["stars"], ["stars"]]
    assert all(scored for _, _, scored in states)
    (_, before, _), (_, after, _) = states[1], states[5]
    own_tensors = [name for name in before if name.endswith(".task_stars")]
    assert all(torch.equal(before[name], after[name]) for name in own_tensors)
    assert any(not torch.equal(before[name], after[name]) for name in before if name.endswith(".task_mood"))
    weights = [entry["weight_stars"] for entry in own.state.log_history if "weight_stars" in entry]
    assert weights == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_every_logger_gets_losses_weights_counts_and_gradient_norms(tmp_path, tokenizer):
    """Read back from the file that TensorBoard shows."""
    pytest.importorskip("tensorboard", reason="the optional package `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    own = trainer(
        tmp_path,
        tokenizer,
        max_steps=4,
        logging_steps=2,
        report_to="tensorboard",
        per_device_train_batch_size=8,
    )
    own.train()
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = EventAccumulator(str(file))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    for name in ("mood", "stars", "tags"):
        assert {f"train/{kind}_{name}" for kind in ("loss", "weight", "rows", "grad_norm")} <= tags
    rows = sum(events.Scalars(f"train/rows_{name}")[-1].value for name in ("mood", "stars", "tags"))
    assert rows == 4 * 8
    assert events.Scalars("train/weight_tags")[-1].value == 2.0


def test_logged_gradient_norms_are_those_of_the_tasks_own_parameters(tmp_path, tokenizer):
    own = trainer(
        tmp_path,
        tokenizer,
        max_steps=1,
        logging_steps=1,
        per_device_train_batch_size=8,
        length_grouping=False,
        max_grad_norm=0.0,
    )
    seen = {}
    step = own.training_step

    def watched(model, inputs, num_items_in_batch=None):
        loss = step(model, inputs, num_items_in_batch)
        for name in ("mood", "stars", "tags"):
            gradients = [tensor.grad for tensor in own.model.task_parameters(name) if tensor.grad is not None]
            seen[name] = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
        return loss

    own.training_step = watched
    own.train()
    logged = next(entry for entry in own.state.log_history if "loss" in entry)
    for name, norm in seen.items():
        assert logged[f"grad_norm_{name}"] == pytest.approx(norm, rel=1e-5)
