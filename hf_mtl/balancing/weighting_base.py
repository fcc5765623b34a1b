"""The base of loss weightings: weights for a step, learned from the steps before."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from ..modeling.errors import InputError

# What a weighting reads, and so what accumulation does to it. "nothing" and "previous_losses": exact however a step is
# split. "step_losses": exact where a step is one batch (on each process); under accumulation the losses are those of
# the steps before. "losses_after": also the losses of the same batches after the step, one more forward pass.
# "gradient_norms": also the norm of each task's gradient in the last shared layer, T small backward passes.
Needs = Literal["nothing", "previous_losses", "step_losses", "losses_after", "gradient_norms"]


@dataclass(frozen=True)
class WeightingOptions:
    """Settings of loss weightings; each reads its own.

    Args:
        learning_rate: Of weights that are learned.
        temperature: Of softmax forms; None is the method's own default.
        smoothing: Share of a step's loss in its running mean; 1 keeps no memory.
        chance_losses: By task the loss of a uniform prediction.
        epoch_steps: Steps of an epoch.
        restoring_force: Alpha of `gradnorm`.
        seed: Of random weights.
    """

    learning_rate: float = 0.025
    temperature: float | None = None
    smoothing: float = 0.05
    chance_losses: Sequence[float] = ()
    epoch_steps: int = 100
    restoring_force: float = 1.5
    seed: int = 42


class LossWeighting(ABC):
    """Gives each task's weight in the loss of a step, and learns from the losses of the whole step.

    The losses are those of all processes and accumulated batches, so every process has the same weights.

    Args:
        fixed_weights: The tasks' own weights, in order.
        options: Settings.
    """

    needs: ClassVar[Needs] = "nothing"

    def __init__(self, fixed_weights: Sequence[float], options: WeightingOptions | None = None) -> None:
        if not any(weight > 0 for weight in fixed_weights):
            raise InputError(f"At least one task needs a weight > 0; found {list(fixed_weights)}.")
        self.fixed_weights = torch.tensor(fixed_weights, dtype=torch.float64)
        self.num_tasks = len(fixed_weights)
        self.options = options or WeightingOptions()

    def weights(self) -> torch.Tensor:
        """Return the weights (tasks,) of the step at hand."""
        return self.fixed_weights * self.factors()

    @abstractmethod
    def factors(self) -> torch.Tensor:
        """Return what multiplies the tasks' own weights, (tasks,)."""

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        """Take the losses of a step: before its weights are asked for where `needs` says "step_losses" or more and the
        step is one batch, else after it.

        Args:
            losses: (tasks,) mean loss of each task's labels in the step.
            present: (tasks,) whether the step had a label of the task.
        """

    def observe_after(self, before: torch.Tensor, after: torch.Tensor, present: torch.Tensor) -> None:
        """Take the losses (tasks,) of the same batches before and after the step; called where `needs` says so."""

    def observe_gradients(self, norms: torch.Tensor, losses: torch.Tensor, present: torch.Tensor) -> None:
        """Take the norms (tasks,) of the tasks' unweighted gradients; called where `needs` says so."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
