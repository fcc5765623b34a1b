"""Forms of batches: the rows drawn in a window become steps, and a step's rows batches."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..modeling.errors import InputError

Steps = list[list[np.ndarray]]


@dataclass(frozen=True)
class RowCosts:
    """The cost of rows in a batch.

    Args:
        lengths: (rows,) word pieces of the longest sequence of each row.
        sequences: (rows,) encoder sequences of each row (choices); None where each has one.
    """

    lengths: np.ndarray
    sequences: np.ndarray | None = None

    def padded(self, rows: np.ndarray) -> int:
        """Return the word pieces, padding included, of a batch of rows."""
        count = len(rows) if self.sequences is None else int(self.sequences[rows].sum())
        return count * int(self.lengths[rows].max())


@dataclass(frozen=True)
class StepShape:
    """The size of a step.

    Args:
        batch_rows: Rows of a batch.
        batches: Batches of a step: accumulated ones times processes.
        tasks_per_step: Of the form `k_tasks`.
        tokens_per_batch: A batch's word pieces at most, padding included, instead of a number of rows.
    """

    batch_rows: int
    batches: int = 1
    tasks_per_step: int = 1
    tokens_per_batch: int | None = None

    @property
    def rows(self) -> int:
        """Rows of a step."""
        return self.batch_rows * self.batches


class BatchForm(ABC):
    """A rule for rows that may share a batch.

    A block is a number of consecutive draws that go to one task.
    """

    mixes_tasks: ClassVar[bool] = True

    @abstractmethod
    def block_rows(self, shape: StepShape) -> int:
        """Return how many rows a draw stands for."""

    def steps(
        self, blocks: np.ndarray, tasks: np.ndarray, shape: StepShape, costs: RowCosts | None, rng: np.random.Generator
    ) -> Steps:
        """Arrange a window's rows.

        Args:
            blocks: (blocks, block rows) the rows in the order in which they were drawn.
            tasks: (blocks,) each block's task.
            shape: How large a step is.
            costs: Rows of similar length are put together; None keeps them as they were drawn.
            rng: Decides what is left open.
        """
        if costs is not None:
            blocks = self.grouped(blocks, tasks, shape, costs, rng)
        whole = blocks.reshape(-1, shape.rows)
        return [list(self.within_step(step, costs).reshape(shape.batches, -1)) for step in whole]

    @abstractmethod
    def grouped(
        self,
        blocks: np.ndarray,
        tasks: np.ndarray,
        shape: StepShape,
        costs: RowCosts,
        rng: np.random.Generator,
    ) -> np.ndarray:
        """Return the rows in an order in which neighbours are of similar length."""

    def within_step(self, rows: np.ndarray, costs: RowCosts | None) -> np.ndarray:
        """Return a step's rows in the order in which they are cut into batches."""
        return rows if costs is None else _by_length(rows, costs)


class MixedBatches(BatchForm):
    """Rows of any tasks share a batch; the shortest of a window go together, and the steps are shuffled."""

    def block_rows(self, shape: StepShape) -> int:
        return 1

    def grouped(
        self,
        blocks: np.ndarray,
        tasks: np.ndarray,
        shape: StepShape,
        costs: RowCosts,
        rng: np.random.Generator,
    ) -> np.ndarray:
        # Shuffled before the stable sort, so that rows of equal length meet others every time.
        rows = _by_length(rng.permutation(blocks.reshape(-1)), costs)
        return rng.permutation(rows.reshape(-1, shape.rows))


class TaskBlocks(BatchForm):
    """Blocks keep their place and their task; the rows of a task are grouped by length over its blocks of a window."""

    def grouped(
        self,
        blocks: np.ndarray,
        tasks: np.ndarray,
        shape: StepShape,
        costs: RowCosts,
        rng: np.random.Generator,
    ) -> np.ndarray:
        order = np.empty_like(blocks)
        for task in np.unique(tasks):
            places = np.flatnonzero(tasks == task)
            rows = _by_length(rng.permutation(blocks[places].reshape(-1)), costs)
            order[places] = rng.permutation(rows.reshape(len(places), -1))
        return order


class OneTaskBatches(TaskBlocks):
    """All rows of a batch are of one task; batches of a step may be of different ones."""

    mixes_tasks = False

    def block_rows(self, shape: StepShape) -> int:
        return shape.batch_rows

    def within_step(self, rows: np.ndarray, costs: RowCosts | None) -> np.ndarray:
        return rows


class FewTasksSteps(TaskBlocks):
    """A step is `tasks_per_step` equal blocks of rows, each of one task, so of as many tasks at most.

    Raises:
        InputError: The step's rows cannot be divided among them.
    """

    def block_rows(self, shape: StepShape) -> int:
        if shape.rows % shape.tasks_per_step:
            raise InputError(
                f"A step of {shape.rows} rows cannot be divided among tasks_per_step={shape.tasks_per_step} tasks; "
                "choose a divisor."
            )
        return shape.rows // shape.tasks_per_step


def _by_length(rows: np.ndarray, costs: RowCosts) -> np.ndarray:
    return rows[np.argsort(costs.lengths[rows], kind="stable")]


def token_steps(rows: np.ndarray, shape: StepShape, costs: RowCosts, rng: np.random.Generator) -> Steps:
    """Arrange a window's rows into batches of at most `tokens_per_batch` word pieces, padding included.

    Rows of similar length share a batch; a row that is longer than the budget has a batch of its own. The window's
    batches are dealt out to whole steps; where their number does not allow it, the largest are halved.
    """
    assert shape.tokens_per_batch is not None
    batches = _within_budget(_by_length(rng.permutation(rows), costs), shape.tokens_per_batch, costs)
    while len(batches) % shape.batches:
        largest = max(range(len(batches)), key=lambda place: len(batches[place]))
        if len(batches[largest]) < 2:
            break
        batch = batches[largest]
        batches[largest : largest + 1] = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    # Neighbours go into one step, so that its processes have alike work; what is left over repeats nobody's row.
    steps = [batches[start : start + shape.batches] for start in range(0, len(batches), shape.batches)]
    return [steps[place] for place in rng.permutation(len(steps))]


def _within_budget(rows: np.ndarray, budget: int, costs: RowCosts) -> list[np.ndarray]:
    batches: list[np.ndarray] = []
    start, sequences = 0, 0
    counts = np.ones(len(rows), dtype=np.int64) if costs.sequences is None else costs.sequences[rows]
    for place, (length, count) in enumerate(zip(costs.lengths[rows].tolist(), counts.tolist())):
        # Rows come by length, so the row at hand is the longest.
        if place > start and (sequences + count) * length > budget:
            batches.append(rows[start:place])
            start, sequences = place, 0
        sequences += count
    batches.append(rows[start:])
    return batches


BATCH_FORMS: dict[str, Callable[[], BatchForm]] = {
    "mixed": MixedBatches,
    "one_task": OneTaskBatches,
    "k_tasks": FewTasksSteps,
}
