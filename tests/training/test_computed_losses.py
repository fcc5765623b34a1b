"""`compute_loss` computes and does nothing else; `training_step` runs the passes and learns from them."""

import copy
import logging

import pytest
import torch

from hf_mtl import InputError, MultiTaskTrainer
from hf_mtl.balancing.gradient_balancing import GRADIENT_BALANCERS
from hf_mtl.balancing.loss_weighting import LOSS_WEIGHTINGS
from tests.training.test_balanced_steps import batches_of_a_step, needs_torchjd
from tests.training.test_step_loss import trainer

METHODS = [
    *({"loss_weighting": name} for name in LOSS_WEIGHTINGS),
    *(pytest.param({"gradient_balancing": name}, marks=needs_torchjd) for name in list(GRADIENT_BALANCERS)[::4]),
]


def refuse(*given, **options):
    raise AssertionError("compute_loss ran a backward pass")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: next(iter(method.values())))
def test_a_loss_is_computed_without_a_trace(method, tmp_path, tokenizer, monkeypatch):
    own = trainer(tmp_path, tokenizer, torch.float64, max_steps=4, per_device_train_batch_size=8, **method)
    batches = batches_of_a_step(own)
    batch, counts = batches[0], own._get_num_items_in_batch(batches, torch.device("cpu"))
    model = own.model.train()
    before = {name: copy.deepcopy(value) for name, value in vars(own.step_weighting).items() if name != "reduce"}
    state, logged = copy.deepcopy(own.loss_weighting.state()), own.logged_losses.clone()
    with monkeypatch.context() as patched:
        patched.setattr(torch.autograd, "backward", refuse)
        patched.setattr(torch.autograd, "grad", refuse)
        losses = [own.compute_loss(model, copy.deepcopy(batch), num_items_in_batch=counts) for _ in range(2)]
        loss, outputs = own.compute_loss(model, copy.deepcopy(batch), return_outputs=True, num_items_in_batch=counts)
    assert losses[0] == losses[1] == loss and loss.requires_grad and outputs.logits.keys() <= set(own.specs)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert own.loss_weighting.state() == state and torch.equal(own.logged_losses, logged)
    after = vars(own.step_weighting)
    assert all(after[name] is value is None for name, value in before.items() if name not in ("weighting", "shared"))
    # The step computes the same loss, and learns from it.
    step = own.training_step(model, copy.deepcopy(batch), counts)
    assert step == loss and own.logged_losses[1].sum() > 0
    assert any(parameter.grad is not None for parameter in model.parameters())


def test_a_step_reads_its_batch_once(tmp_path, tokenizer):
    for method in ({"loss_weighting": "si"}, {"loss_weighting": "gradnorm"}):
        own = trainer(tmp_path, tokenizer, max_steps=2, per_device_train_batch_size=8, **method)
        passes = []
        own.model.encoder.register_forward_hook(lambda *given, passes=passes: passes.append(1))
        own.train()
        assert len(passes) == 2


class LossAlone(MultiTaskTrainer):
    """As many scripts write it, which leave `return_outputs` unread."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)


class TwiceTheLoss(MultiTaskTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        return (2 * loss, outputs) if return_outputs else 2 * loss


def test_a_loss_of_ones_own_comes_with_its_outputs(tmp_path, tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("hf_mtl"), "propagate", True)
    own = trainer(tmp_path, tokenizer, max_steps=1, per_device_train_batch_size=8)
    batches = batches_of_a_step(own)
    counts = own._get_num_items_in_batch(batches, torch.device("cpu"))
    plain = own.training_step(own.model, batches[0], counts)
    own.__class__ = TwiceTheLoss
    assert own.training_step(own.model, batches[0], counts) == 2 * plain
    own.__class__ = LossAlone
    logged = own.logged_losses.clone()
    with caplog.at_level("WARNING"):
        assert own.training_step(own.model, batches[0], counts) == plain
    assert "no loss per task is logged" in caplog.text and torch.equal(own.logged_losses, logged)
    own = trainer(tmp_path, tokenizer, max_steps=1, per_device_train_batch_size=8, loss_weighting="si")
    own.__class__ = LossAlone
    with pytest.raises(InputError, match=r"loss_weighting='si' reads.*return \(loss, outputs\) if return_outputs"):
        own.training_step(own.model, batches[0], counts)
