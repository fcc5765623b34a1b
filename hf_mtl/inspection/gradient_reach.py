"""The parameters that a task's loss reaches."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..modeling.modeling_multitask import MultiTaskAttentionModel
from ..modeling.separate_encoders import PrivateEncoders
from ..modeling.task_tensors import task_key
from ..modeling.trunks import tasks_without_company

# Paths that start closed (a zero matrix at their end) are opened by so much, to see what lies behind them.
_OPENED_STD = 0.02


@dataclass
class GradientReach:
    """The findings of backward passes of single tasks.

    Args:
        reached: Names of the parameters to which some task's loss gave a gradient other than zero.
        bad_tasks: Tasks whose loss or gradient was not finite.
        judged: Tasks that had labels.
    """

    reached: set[str] = field(default_factory=set)
    bad_tasks: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)


def gradient_reach(model: MultiTaskAttentionModel, batches: Mapping[str, Mapping[str, Any]]) -> GradientReach:
    """Answer a batch of each task, run its loss backward, and see what it reached; the model is left as it was.

    Args:
        model: The model.
        batches: By task, a batch of some of its rows, on the model's device.
    """
    reach = GradientReach()
    with _open_closed_parameters(model):
        for name, batch in batches.items():
            model.zero_grad()
            outputs = model(**batch)
            index = model.config.task_names.index(name)
            if outputs.task_label_counts[index] == 0:
                continue
            reach.judged.append(name)
            loss = outputs.task_loss_sums[index]
            if outputs.task_penalty_sums is not None:
                loss = loss + outputs.task_penalty_sums[index]
            loss.backward()
            gradients = {
                parameter: tensor.grad for parameter, tensor in model.named_parameters() if tensor.grad is not None
            }
            if not bool(loss.isfinite()) or not all(bool(tensor.isfinite().all()) for tensor in gradients.values()):
                reach.bad_tasks.append(name)
            reach.reached |= {parameter for parameter, tensor in gradients.items() if bool(tensor.any())}
    return reach


def unreached_parameters(model: MultiTaskAttentionModel, reach: GradientReach) -> list[str]:
    """Return the names of trained parameters that no task's loss reached, those of tasks without labels left out."""
    not_judged = [name for name in model.config.task_names if name not in reach.judged]
    unjudged = {id(parameter) for name in not_judged for parameter in model.task_parameters(name)}
    # A task of a modality of its own reads itself alone, whatever it would prefer.
    of_company = tuple(f".self_bias.{task_key(name)}" for name in tasks_without_company(model.config))
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
        and id(parameter) not in unjudged
        and name not in reach.reached
        and not (of_company and name.endswith(of_company))
    ]


@contextmanager
def _open_closed_parameters(model: MultiTaskAttentionModel) -> Iterator[None]:
    """Without dropout, with small numbers in the trained tensors that are all zero, and with encoders apart that start
    as copies of one, while the block runs.
    """
    mode = model.training
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    closed = [parameter for parameter in trained if not bool(parameter.any())] + _copied(model)
    before = [parameter.detach().clone() for parameter in closed]
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.no_grad():
            for tensor in closed:
                tensor.add_((_OPENED_STD * torch.randn(tensor.shape, generator=generator)).to(tensor))
        model.eval()
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                # cuDNN runs no backward pass through one that is not training.
                module.train()
        yield
    finally:
        with torch.no_grad():
            for tensor, values in zip(closed, before):
                tensor.copy_(values)
        model.zero_grad()
        model.train(mode)


def _copied(model: MultiTaskAttentionModel) -> list[nn.Parameter]:
    """The trained vectors of encoders that are compared with a shared one: what reads the difference of two that say
    the same has no gradient.
    """
    if not isinstance(model.encoder, PrivateEncoders):
        return []
    tensors = [tensor for encoder in model.encoder for tensor in encoder.parameters()]
    return [tensor for tensor in tensors if tensor.requires_grad and tensor.ndim == 1]
