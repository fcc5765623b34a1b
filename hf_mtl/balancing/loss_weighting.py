"""Task weights of the loss."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from ..modeling import InputError


class LossWeighting(ABC):
    """Gives each task's weight in the loss of a step, before the step; learns from the losses of the whole step after.

    The losses are those of all processes and accumulated batches, so every process has the same weights, and
    accumulation changes nothing.

    Args:
        fixed_weights: The tasks' own weights, in order; they multiply what is learned.
        learning_rate: Of weights that are learned.
    """

    reads_losses: ClassVar[bool] = False

    def __init__(self, fixed_weights: Sequence[float], learning_rate: float = 0.025) -> None:
        if not any(weight > 0 for weight in fixed_weights):
            raise InputError(f"At least one task needs a weight > 0; found {list(fixed_weights)}.")
        self.fixed_weights = torch.tensor(fixed_weights, dtype=torch.float32)
        self.learning_rate = learning_rate

    @abstractmethod
    def weights(self) -> torch.Tensor:
        """Return the weights (tasks,) of the step that comes."""

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        """Take the losses of the step that ended.

        Args:
            losses: (tasks,) mean loss of each task's labels in the step.
            present: (tasks,) whether the step had a label of the task.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps: JSON values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""


class FixedLossWeighting(LossWeighting):
    """The weights that the task rows give, 1 by default: well-chosen ones are the baseline to beat."""

    def weights(self) -> torch.Tensor:
        return self.fixed_weights


class UncertaintyLossWeighting(LossWeighting):
    """Weights exp(-s_t), s_t the learned logarithm of the task's variance (Kendall et al. 2018, equation 7).

    sum_t exp(-s_t) L_t + s_t over the tasks of the step: twice the paper's form, so that all weights start at 1. A
    task that the step lacks keeps its s_t; all settle where exp(s_t) = L_t.
    """

    reads_losses = True

    def __init__(self, fixed_weights: Sequence[float], learning_rate: float = 0.025) -> None:
        super().__init__(fixed_weights, learning_rate)
        # A tensor a task: Adam leaves alone those without a gradient.
        self.log_variances = [torch.zeros(()) for _ in fixed_weights]
        self.optimizer = torch.optim.Adam(self.log_variances, lr=learning_rate)

    def weights(self) -> torch.Tensor:
        return self.fixed_weights * torch.exp(-torch.stack(self.log_variances))

    def observe(self, losses: torch.Tensor, present: torch.Tensor) -> None:
        for variance, loss, seen in zip(self.log_variances, losses.float().cpu(), present.tolist()):
            variance.grad = 1 - torch.exp(-variance) * loss if seen else None
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        moments = {
            place: {key: float(value) for key, value in own.items()}
            for place, own in self.optimizer.state_dict()["state"].items()
        }
        return {"log_variances": [float(variance) for variance in self.log_variances], "moments": moments}

    def load_state(self, state: Mapping[str, Any]) -> None:
        for variance, value in zip(self.log_variances, state["log_variances"], strict=True):
            variance.fill_(value)
        known = self.optimizer.state_dict()
        known["state"] = {
            int(place): {key: torch.tensor(value) for key, value in own.items()}
            for place, own in state["moments"].items()
        }
        self.optimizer.load_state_dict(known)


LOSS_WEIGHTINGS: dict[str, type[LossWeighting]] = {
    "fixed": FixedLossWeighting,
    "uncertainty": UncertaintyLossWeighting,
}
