"""Numbers a task that follow what a run sees: running means, and what Adam learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class RunningMeans:
    """Exponential running means, unbiased from the first value on, of tasks that come and go.

    Args:
        size: How many tasks.
        smoothing: Share of the newest value.
    """

    size: int
    smoothing: float
    sums: torch.Tensor = field(init=False)
    counts: torch.Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.sums = torch.zeros(self.size, dtype=torch.float64)
        self.counts = torch.zeros(self.size, dtype=torch.float64)

    def update(self, values: torch.Tensor, present: torch.Tensor) -> None:
        """Take the values (tasks,) of the tasks that are present."""
        mixed = (1 - self.smoothing) * self.sums + self.smoothing * values.cpu().double()
        self.sums = torch.where(present.cpu(), mixed, self.sums)
        self.counts += present.cpu()

    @property
    def seen(self) -> torch.Tensor:
        """(tasks,) whether a task has a mean."""
        return self.counts > 0

    def values(self) -> torch.Tensor:
        """Return the means (tasks,), float64; a task never seen has the mean of the others, or 1 before any is."""
        if not self.seen.any():
            return torch.ones_like(self.sums)
        means = self.sums / (1 - (1 - self.smoothing) ** self.counts).clamp(min=1e-300)
        return torch.where(self.seen, means, means[self.seen].mean())

    def state(self) -> dict[str, list[float]]:
        """Return what a checkpoint keeps."""
        return {"sums": self.sums.tolist(), "counts": self.counts.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.sums = torch.tensor(state["sums"], dtype=torch.float64)
        self.counts = torch.tensor(state["counts"], dtype=torch.float64)


class LearnedVector:
    """A number per task, moved by Adam; those without a gradient in a step stay where they are.

    Args:
        start: The numbers at the start.
        learning_rate: Adam's.
        weight_decay: Adam's own, added to the gradient.
    """

    def __init__(self, start: Sequence[float], learning_rate: float, weight_decay: float = 0.0) -> None:
        # A tensor each: Adam leaves alone those without a gradient.
        self.parts = [torch.tensor(value, dtype=torch.float64) for value in start]
        self.optimizer = torch.optim.Adam(self.parts, lr=learning_rate, weight_decay=weight_decay)

    @property
    def values(self) -> torch.Tensor:
        """(tasks,)."""
        return torch.stack(self.parts)

    def set(self, values: torch.Tensor) -> None:
        """Put the numbers elsewhere."""
        for part, value in zip(self.parts, values, strict=True):
            part.copy_(value)

    def move(self, gradients: torch.Tensor, present: torch.Tensor) -> None:
        """Take one step against the gradients (tasks,) of the tasks that are present."""
        for part, gradient, seen in zip(self.parts, gradients.cpu().double(), present.tolist(), strict=True):
            part.grad = gradient.clone() if seen else None
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        moments = self.optimizer.state_dict()["state"]
        return {
            "values": self.values.tolist(),
            "moments": {
                place: {key: float(value) for key, value in numbers.items()} for place, numbers in moments.items()
            },
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.set(torch.tensor(state["values"], dtype=torch.float64))
        current = self.optimizer.state_dict()
        current["state"] = {
            int(place): {
                key: torch.tensor(value, dtype=torch.float32 if key == "step" else torch.float64)
                for key, value in numbers.items()
            }
            for place, numbers in state["moments"].items()
        }
        self.optimizer.load_state_dict(current)
