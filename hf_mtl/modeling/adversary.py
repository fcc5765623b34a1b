"""An adversary: a discriminator of tasks, and the reversal of the gradient that it sends into what it reads."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from .task_tensors import ModuleWithConstants, TaskTensors, UnitScaleLinear, at_least_float32


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, strength: torch.Tensor) -> torch.Tensor:
        ctx.strength = strength
        return states.view_as(states)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.strength.to(gradients[0]) * gradients[0], None


class GradientReversal(ModuleWithConstants):
    """Passes states on as they are and gradients back with the other sign (Ganin et al. 2016, equations 15 and 16).

    Attributes:
        progress: How much of the run is over, in [0, 1]; a Trainer sets it.
    """

    progress: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.set_constant("progress", 1.0)

    def set_progress(self, progress: float) -> None:
        """Say how much of the run is over."""
        # In place, since a compiled model would be compiled anew for each other number.
        self.constants["progress"] = progress
        self.progress.fill_(progress)

    def strength(self) -> torch.Tensor:
        """Return 2 / (1 + exp(-10 progress)) - 1: 0 at the run's beginning, nearly 1 from its middle on."""
        return 2 / (1 + (-10 * self.progress).exp()) - 1

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return _Reverse.apply(states, self.strength())  # type: ignore[no-untyped-call]


class DomainDiscriminator(nn.Module):
    """Says which task a state is read for.

    Args:
        task_names: The tasks in order.
        hidden_size: Width of the state.
        size: Inner size.
    """

    def __init__(self, task_names: list[str], hidden_size: int, size: int) -> None:
        super().__init__()
        self.inner = UnitScaleLinear(hidden_size, size)
        self.outer = TaskTensors(dict.fromkeys(task_names, 1), width=size, std=size**-0.5)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities (batch, tasks) for states (batch, hidden)."""
        logits = F.gelu(self.inner(states)) @ self.outer().squeeze(1).T
        return at_least_float32(logits).log_softmax(dim=-1)


def adversary_measurements(guesses: torch.Tensor, reversal: GradientReversal) -> dict[str, torch.Tensor]:
    """Return what is logged of an adversary for each row and task, (rows, tasks): the accuracy of its discriminator
    and that of chance, from 0 to 100, and the strength of the reversal.

    Args:
        guesses: (rows, tasks) log-probabilities of the tasks.
        reversal: What stands before the discriminator.
    """
    count = guesses.shape[-1]
    is_right = guesses.argmax(dim=-1, keepdim=True) == torch.arange(count, device=guesses.device)
    accuracy = 100.0 * is_right.float()
    return {
        "adversary_accuracy": accuracy,
        "adversary_chance": torch.full_like(accuracy, 100.0 / count),
        "adversary_strength": reversal.strength().expand_as(accuracy),
    }


__all__ = ["DomainDiscriminator", "GradientReversal", "adversary_measurements"]
