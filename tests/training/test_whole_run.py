"""Whole runs: what every epoch draws, what is logged, when a run stops, and how it resumes."""

import copy
from collections import Counter

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from tests.conftest import GivenBatches
from tests.training.test_step_loss import datasets, trainer

ROWS = 24 + 12 + 24


class Recorder(TrainerCallback):
    """Remembers the step at which a run ended."""

    last_step = None

    def on_train_end(self, args, state, control, **kwargs):
        self.last_step = state.global_step


def watch_rows(own) -> list[list[int]]:
    """Record the rows of every collated batch, as places in the training data."""
    seen, original = [], own.train_dataset

    class Watched(torch.utils.data.Dataset):
        sizes, costs, features = original.sizes, original.costs, original.features
        at_draw = staticmethod(original.at_draw)

        def __len__(self):
            return len(original)

        def __getitem__(self, index):
            seen.append(index)
            return original[index]

    own.train_dataset = Watched()
    return seen


def held_out() -> dict:
    return {name: rows.select(range(6)) for name, rows in datasets().items()}


def test_every_epoch_sees_every_row_once_in_another_order(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, num_train_epochs=3, per_device_train_batch_size=6)
    seen = watch_rows(own)
    own.train()
    epochs = [seen[start : start + ROWS] for start in range(0, len(seen), ROWS)]
    assert len(epochs) == 3
    assert all(sorted(epoch) == list(range(ROWS)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_without_length_grouping_every_epoch_has_its_order_too(tmp_path, tokenizer):
    own = trainer(tmp_path, tokenizer, num_train_epochs=2, per_device_train_batch_size=6, length_grouping=False)
    seen = watch_rows(own)
    own.train()
    assert Counter(seen) == Counter(dict.fromkeys(range(ROWS), 2))
    assert seen[:ROWS] != seen[ROWS:]


@pytest.mark.parametrize(
    "stop", [pytest.param(5, marks=pytest.mark.slow), 10, pytest.param(14, marks=pytest.mark.slow)]
)
def test_a_resumed_run_ends_bit_equal(tmp_path, tokenizer, stop):
    """A run of 2 epochs of 10 steps, resumed inside the first, between the two and inside the second."""
    arguments = {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 6,
        "save_strategy": "steps",
        "save_steps": 1,
        "learning_rate": 1e-3,
    }
    whole = trainer(tmp_path, tokenizer, **arguments)
    whole.train()
    again = trainer(tmp_path, tokenizer, **arguments)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))
    assert again.state.global_step == 20
    expected = whole.model.state_dict()
    moved = [name for name, tensor in again.model.state_dict().items() if not torch.equal(tensor, expected[name])]
    assert not moved


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_logged_loss_is_the_loss_of_the_step(tmp_path, tokenizer, accumulate):
    """Logged are the step's loss and each task's mean, not the sums or means of accumulated batches."""
    rows = [0, 24, 36, 37, 1, 2, 38, 25]
    own = trainer(
        tmp_path,
        tokenizer,
        max_steps=1,
        logging_steps=1,
        gradient_accumulation_steps=accumulate,
        per_device_train_batch_size=8 // accumulate,
    )
    expected = copy.deepcopy(own.model)(**own.data_collator([own.train_dataset[row] for row in rows]))
    size = 8 // accumulate
    batches = [rows[start : start + size] for start in range(0, 8, size)]
    own._batch_sampler = lambda: GivenBatches(batches, accumulate)
    own.train()
    logged = next(entry for entry in own.state.log_history if "loss" in entry)
    for name in ("mood", "stars", "tags"):
        assert logged[f"loss_{name}"] == pytest.approx(expected.task_losses[name].item(), rel=1e-4)
    weighted = sum(
        expected.task_losses[name].item() * share
        for name, share in (("mood", 3 / 8), ("stars", 2 / 8), ("tags", 2.0 * 3 / 8))
    )
    assert logged["loss"] == pytest.approx(weighted, rel=1e-4)


def test_a_run_stops_early_when_the_mean_no_longer_rises(tmp_path, tokenizer):
    """With a learning rate of nothing no score rises, so patience is all that is trained."""
    recorder = Recorder()
    own = trainer(
        tmp_path,
        tokenizer,
        validation=held_out(),
        max_steps=10,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        learning_rate=1e-30,
    )
    own.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    own.add_callback(recorder)
    own.train()
    assert recorder.last_step == 3
    assert own.state.best_model_checkpoint.endswith("checkpoint-1")


def test_losses_since_the_last_log_are_averaged_over_labels(tmp_path, tokenizer):
    """Two steps of `mood` rows between logs: the mean of their losses, and no other task's."""
    own = trainer(tmp_path, tokenizer, max_steps=2, logging_steps=2, learning_rate=1e-30, parts_learning_rate=1e-30)
    rows = [0, 1, 2, 3, 4, 5]
    expected = copy.deepcopy(own.model)(**own.data_collator([own.train_dataset[row] for row in rows]))
    own._batch_sampler = lambda: GivenBatches([rows[:4], rows[4:]])
    own.train()
    logged = next(entry for entry in own.state.log_history if "loss" in entry)
    assert logged["loss_mood"] == pytest.approx(expected.task_losses["mood"].item(), rel=1e-4)
    assert "loss_stars" not in logged
    assert "loss_tags" not in logged
