"""Task weights of the loss."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from ..modeling import InputError


class LossWeighting(ABC):
    """Gives each task's weight in the loss of a step.

    Args:
        fixed_weights: The tasks' own weights, in order.
    """

    def __init__(self, fixed_weights: Sequence[float]) -> None:
        if not any(weight > 0 for weight in fixed_weights):
            raise InputError(f"At least one task needs a weight > 0; found {list(fixed_weights)}.")
        self.fixed_weights = torch.tensor(fixed_weights, dtype=torch.float32)

    @abstractmethod
    def weights(self) -> torch.Tensor:
        """Return the weights (tasks,) of the step that comes."""


class FixedLossWeighting(LossWeighting):
    """The weights that the task rows give, 1 by default: well-chosen ones are the baseline to beat."""

    def weights(self) -> torch.Tensor:
        return self.fixed_weights


LOSS_WEIGHTINGS: dict[str, type[LossWeighting]] = {"fixed": FixedLossWeighting}
