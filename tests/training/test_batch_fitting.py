"""`auto_find_batch_size` ends as the run does that had the smaller batches from the start."""

import pytest
import torch

from hf_mtl import InputError, MultiTaskTrainer
from tests.training.test_step_loss import trainer


class SmallMemory(MultiTaskTrainer):
    """A machine in whose memory so many rows fit, and none at all of them until some batches are over."""

    fits = 4
    spared = 0
    sizes: list[int]

    def training_step(self, model, inputs, *args, **more):
        self.sizes.append(len(inputs["input_ids"]))
        if self.sizes[-1] > self.fits and len(self.sizes) > self.spared:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().training_step(model, inputs, *args, **more)


def build(tmp_path, tokenizer, monkeypatch, spared=0, fits=4, **arguments) -> SmallMemory:
    monkeypatch.setattr("tests.training.test_step_loss.MultiTaskTrainer", SmallMemory)
    given = {"max_steps": 4, "save_strategy": "no", "learning_rate": 1e-3, "logging_steps": 1, **arguments}
    own = trainer(tmp_path, tokenizer, **given)
    own.sizes, own.spared, own.fits = [], spared, fits
    for module in own.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    return own


@pytest.mark.parametrize(
    ("size", "spared"),
    [
        ({}, 2),
        pytest.param({}, 0, marks=pytest.mark.slow),
        pytest.param({"global_batch_size": 16}, 2, marks=pytest.mark.slow),
    ],
)
def test_the_run_is_that_of_smaller_batches(size, spared, tmp_path, tokenizer, monkeypatch, capsys):
    weighted = {"loss_weighting": "uncertainty", **size}
    split = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    expected = build(tmp_path, tokenizer, monkeypatch, **{**weighted, **split})
    torch.manual_seed(5)
    expected.train()
    own = build(
        tmp_path, tokenizer, monkeypatch, spared, per_device_train_batch_size=16, auto_find_batch_size=True, **weighted
    )
    torch.manual_seed(5)
    own.train()
    assert own.sizes[: spared + 2] == [16] * (spared + 1) + [8]
    assert own.sizes[spared + 2 :] == [4] * 16
    assert own.args.per_device_train_batch_size == 4
    assert own.run_state() == expected.run_state()
    for name, tensor in expected.model.state_dict().items():
        assert tensor.equal(own.model.state_dict()[name]), name
    losses = [[entry["loss"] for entry in run.state.log_history if "loss" in entry] for run in (expected, own)]
    assert losses[0] == losses[1]
    own.args.restore()
    assert (own.args.per_device_train_batch_size, own.args.gradient_accumulation_steps) == (16, 1)
    assert "Batches of 16 rows do not fit" in capsys.readouterr().out


def test_what_cannot_be_divided_is_refused(tmp_path, tokenizer, monkeypatch):
    own = build(tmp_path, tokenizer, monkeypatch, fits=0, per_device_train_batch_size=6, auto_find_batch_size=True)
    with pytest.raises(InputError, match="Not even one row fits"):
        own.train()
    assert own.sizes == [6, 3, 1]
    for given in ({"batch_form": "one_task"}, {"tokens_per_batch": 80}):
        own = build(tmp_path, tokenizer, monkeypatch, auto_find_batch_size=True, **given)
        with pytest.raises(InputError, match="auto_find_batch_size does not go with .*global_batch_size"):
            own.train()
