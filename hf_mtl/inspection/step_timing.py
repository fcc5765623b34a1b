"""The cost of a run's step, with its method and without, before the run begins."""

import copy
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from ..balancing.gradient_balancing import GradientBalancer
from ..balancing.loss_weighting import FixedLossWeighting
from ..balancing.weighting_base import LossWeighting
from ..data.streams import StreamedMixture
from ..modeling.random_states import kept_random_states
from ..training.balanced_step import GradientBalance
from ..training.step_weighting import StepWeighting

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

# Steps at the run's beginning among which a typical one is looked for.
_FIRST_STEPS = 50


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """Give back what passes leave in a model beside gradients: the running statistics of its norms."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, values in before:
            buffer.copy_(values)


def typical_batches(trainer: "MultiTaskTrainer") -> list[dict[str, Any]]:
    """Return this process's batches of one of the first steps, that whose padded size is nearest to their mean; of
    streams, those of the first step.
    """
    data, sampler, accelerator = trainer.train_dataset, trainer.sampler, trainer.accelerator
    if isinstance(data, StreamedMixture) or isinstance(sampler, StreamedMixture):
        return list(islice(iter(cast(StreamedMixture, data)), trainer.args.gradient_accumulation_steps))
    steps = [sampler.step(number) for number in range(min(sampler.epoch_steps, _FIRST_STEPS))]
    sizes = np.array([sum(map(data.costs.padded, batches)) for batches in steps])
    places = steps[int(np.abs(sizes - sizes.mean()).argmin())][accelerator.process_index :: accelerator.num_processes]
    return [trainer.data_collator([data[int(place)] for place in batch]) for batch in places]


def step_seconds(trainer: "MultiTaskTrainer") -> tuple[float, float | None]:
    """Return what the passes of a step take, and what they take with fixed weights and summed gradients.

    Every process must call it. The second number is None where that is what the run does. Model, method and random
    draws are left as they were.
    """
    batches = typical_batches(trainer)
    with _undisturbed(trainer):
        _timed(trainer, batches)  # the first is slower than those that follow
        seconds = _timed(trainer, batches)
        if trainer.balance is None and trainer.loss_weighting.needs == "nothing":
            return seconds, None
        _set_method(trainer, FixedLossWeighting(trainer.loss_weighting.fixed_weights.tolist()), None)
        return seconds, _timed(trainer, batches)


def _timed(trainer: "MultiTaskTrainer", batches: list[dict[str, Any]]) -> float:
    given, counts = trainer.get_batch_samples(iter(map(dict, batches)), len(batches), trainer.args.device)
    _wait(trainer.args.device)
    start = time.perf_counter()
    for place, batch in enumerate(given, 1):
        trainer.accelerator.gradient_state._set_sync_gradients(place == len(given))
        trainer.training_step(trainer.model, batch, counts)
    if trainer.loss_weighting.needs == "losses_after":
        trainer.measure_after_step()
    _wait(trainer.args.device)
    trainer.model.zero_grad()
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.get_device_module(device).synchronize()


@contextmanager
def _undisturbed(trainer: "MultiTaskTrainer") -> Iterator[None]:
    """Take steps with copies of the method; put back, after the block, what else they change."""
    model, device = trainer.model, trainer.args.device
    mode, stream, logged = model.training, trainer.stream_state, trainer.logged_losses.clone()
    method = trainer.loss_weighting, trainer.step_weighting, trainer.balance
    balancer = None if trainer.balance is None else copy.deepcopy(trainer.balance.balancer)
    _set_method(trainer, copy.deepcopy(trainer.loss_weighting), balancer)
    try:
        with kept_random_states(device):
            yield
    finally:
        model.zero_grad()
        model.train(mode)
        trainer.loss_weighting, trainer.step_weighting, trainer.balance = method
        trainer.stream_state, trainer.logged_losses = stream, logged
        trainer.accelerator.gradient_state._set_sync_gradients(True)


def _set_method(trainer: "MultiTaskTrainer", weighting: LossWeighting, balancer: GradientBalancer | None) -> None:
    weighting_of_steps, balance = trainer.step_weighting, trainer.balance
    trainer.loss_weighting = weighting
    trainer.step_weighting = StepWeighting(weighting, weighting_of_steps.reduce, weighting_of_steps.shared)
    trainer.balance = None
    if balancer is not None and balance is not None:
        trainer.balance = GradientBalance(balancer, balance.balanced, len(balance.gradients))
