"""A task that no longer gets better stops training while the others go on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class TaskFreezer:
    """Counts each task's evaluations without a better score, and freezes it when its patience is spent.

    A frozen task's own parameters keep their values, its loss has weight 0, and it is still answered and scored.

    Args:
        patience: By task, how many evaluations without a better score it is given; tasks left out are never frozen.
        tasks: The tasks in order.
    """

    patience: Mapping[str, int]
    tasks: list[str]
    best: dict[str, float] = field(default_factory=dict)
    waited: dict[str, int] = field(default_factory=dict)

    @property
    def frozen(self) -> list[str]:
        """The tasks that no longer train."""
        return [name for name, most in self.patience.items() if self.waited.get(name, 0) >= most]

    def update(self, scores: Mapping[str, float]) -> list[str]:
        """Take the scores of an evaluation; return the tasks that it froze."""
        before = self.frozen
        for name in self.patience:
            if name not in scores or name in before:
                continue
            if name not in self.best or scores[name] > self.best[name]:
                self.best[name], self.waited[name] = scores[name], 0
            else:
                self.waited[name] = self.waited.get(name, 0) + 1
        return [name for name in self.frozen if name not in before]

    def mask(self, device: torch.device) -> torch.Tensor:
        """Return (tasks,) 0 for frozen tasks and 1 for the others."""
        frozen = set(self.frozen)
        return torch.tensor([float(name not in frozen) for name in self.tasks], device=device)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what a checkpoint kept."""
        self.best, self.waited = dict(state["best"]), dict(state["waited"])
