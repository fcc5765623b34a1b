"""Mixing strategies: a share of the draws for every task, fixed or changing over the run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..modeling.errors import InputError

# Stickland and Murray 2019: the exponent falls from 1 by this much over the run.
_ANNEALED_FALL = 0.8

SharesFunction = Callable[[np.ndarray, float], Sequence[float]]


@dataclass(frozen=True)
class MixingOptions:
    """The settings of a run that a strategy may read.

    Args:
        temperature: Of `temperature`.
        power: Of `power`.
        cap: Of `capped`.
        shares: By task, of `explicit`.
        target_scores: By task (0-100), of `dev_gap`.
        tasks: The tasks in order.
    """

    temperature: float = 2.0
    power: float = 0.5
    cap: int = 2**19
    shares: Mapping[str, float] = field(default_factory=dict)
    target_scores: Mapping[str, float] = field(default_factory=dict)
    tasks: Sequence[str] = ()


class MixingStrategy(ABC):
    """Says each task's share of the draws.

    Args:
        options: The run's settings.
    """

    # Whether shares change over the run; they change at the ends of the sampler's windows.
    changes: ClassVar[bool] = False
    # Whether tasks come strictly in turn.
    cyclic: ClassVar[bool] = False

    def __init__(self, options: MixingOptions) -> None:
        self.options = options

    @abstractmethod
    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        """Return the tasks' shares, which sum to 1.

        Args:
            sizes: (tasks,) training rows.
            progress: How much of the run is done, 0 at its first window and 1 at its last.
        """


def _power(sizes: np.ndarray, exponent: float) -> np.ndarray:
    # Relative to the largest, so that no power overflows.
    weights = (sizes / sizes.max()) ** exponent
    return weights / weights.sum()


class ProportionalMixing(MixingStrategy):
    """A task's share is its share of the rows: every row is seen once a pass."""

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return _power(sizes, 1.0)


class UniformMixing(MixingStrategy):
    """Every task has the same share."""

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return np.full(len(sizes), 1.0 / len(sizes))


class RoundRobinMixing(UniformMixing):
    """Every task has its draw in turn, in the order of the tasks."""

    cyclic = True


class PowerMixing(MixingStrategy):
    """p_t = n_t^power / sum: 1 is proportional, 0 uniform, 0.5 the square root."""

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return _power(sizes, self.options.power)


class TemperatureMixing(MixingStrategy):
    """p_t = n_t^(1/temperature) / sum (Raffel et al. 2020, section 3.5.2): 1 is proportional, large is uniform."""

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return _power(sizes, 1.0 / self.options.temperature)


class CappedMixing(MixingStrategy):
    """p_t = min(n_t, cap) / sum (examples-proportional mixing, Raffel et al. 2020, section 3.5.2)."""

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return _power(np.minimum(sizes, self.options.cap), 1.0)


class ExplicitMixing(MixingStrategy):
    """The shares that the task rows give (``share: 3``), relative to each other; a task without one has share 1.

    Raises:
        InputError: No task gives a share above zero.
    """

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        given = np.array([float(self.options.shares.get(task, 1.0)) for task in self.options.tasks])
        if given.sum() <= 0:
            raise InputError(
                "mixing_strategy=explicit: no task has a share above 0; write e.g. `share: 2` in its row."
            )
        return given / given.sum()


class AnnealedMixing(MixingStrategy):
    """p_t = n_t^a / sum, a = 1 - 0.8 progress (Stickland and Murray 2019, section 4.1): from proportional towards
    uniform.
    """

    changes = True

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return _power(sizes, 1.0 - _ANNEALED_FALL * progress)


class CallableMixing(MixingStrategy):
    """Shares from a function of the sizes and the progress; what it returns is scaled to sum to 1.

    Args:
        function: Takes (tasks,) sizes and the progress in [0, 1].
    """

    changes = True

    def __init__(self, function: SharesFunction) -> None:
        super().__init__(MixingOptions())
        self.function = function

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        numbers = np.asarray(self.function(sizes, progress), dtype=float)
        if numbers.shape != sizes.shape or not np.isfinite(numbers).all() or numbers.min() < 0 or numbers.sum() <= 0:
            raise InputError(
                f"The mixing function returned {numbers.tolist()} at progress {progress:.2f}; expected {len(sizes)} "
                "numbers >= 0, not all 0."
            )
        return numbers / numbers.sum()


class DevGapMixing(MixingStrategy):
    """A task's share follows how far its validation score is below its target.

    p_t is proportional to max(target_t - score_t, 0) + 1 points, so that a task that has reached its target is still
    drawn. Shares start uniform; what an evaluation in one window finds holds from the window after the next, when no
    batch of it has been prepared yet.

    Raises:
        InputError: A task has no target.
    """

    changes = True
    SMALLEST_GAP: ClassVar[float] = 1.0

    def __init__(self, options: MixingOptions) -> None:
        super().__init__(options)
        for task in options.tasks:
            if task not in options.target_scores:
                raise InputError(
                    f"mixing_strategy=dev_gap needs a target score of every task; {task!r} has none. Write e.g. "
                    "target_scores: {" + ", ".join(f"{name}: 80" for name in options.tasks) + "}."
                )
        # (first window, shares) in the order of evaluations; what a checkpoint keeps of the mixture.
        self.history: list[tuple[int, list[float]]] = []

    def shares(self, sizes: np.ndarray, progress: float = 0.0) -> np.ndarray:
        return np.full(len(sizes), 1.0 / len(sizes))

    def shares_of_window(self, window: int, sizes: np.ndarray) -> np.ndarray:
        """Return the shares that hold in a window."""
        current = self.shares(sizes)
        for first, shares in self.history:
            if first <= window:
                current = np.array(shares)
        return current

    def update(self, window: int, scores: Mapping[str, float]) -> None:
        """Take the scores (0-100) of an evaluation during `window`."""
        targets = self.options.target_scores
        gaps = np.array([max(targets[name] - scores[name], 0.0) + self.SMALLEST_GAP for name in self.options.tasks])
        self.history = [item for item in self.history if item[0] < window + 2]
        self.history.append((window + 2, (gaps / gaps.sum()).tolist()))


MIXING_STRATEGIES: dict[str, Callable[[MixingOptions], MixingStrategy]] = {
    "proportional": ProportionalMixing,
    "uniform": UniformMixing,
    "power": PowerMixing,
    "temperature": TemperatureMixing,
    "capped": CappedMixing,
    "explicit": ExplicitMixing,
    "annealed": AnnealedMixing,
    "round_robin": RoundRobinMixing,
    "dev_gap": DevGapMixing,
}


@dataclass(frozen=True)
class TaskShare:
    """A line of the mixture table: what a task gets of a training run."""

    task: str
    rows: int
    share: float
    draws: int
    passes: float
