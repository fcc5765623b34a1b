"""The rows of each step: a pure function of the seed, the step and the tasks' sizes."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from ..modeling.errors import InputError
from .batch_forms import BATCH_FORMS, BatchForm, RowCosts, Steps, StepShape, token_steps
from .draws import ChangingDraws, CyclicDraws, DrawSequence, FixedDraws, row_order
from .mixing import DevGapMixing, MixingStrategy, TaskShare

# Rows are sorted by length, and shares change, in windows of at least this many steps (or of a whole epoch where that
# is shorter).
WINDOW_STEPS = 50


class MixtureBatchSampler(Sampler[list[int]]):
    """Batches of a mixture; the rows of step k are computed from (seed, k, sizes, strategy, rows of a step) alone.

    Every row of a task comes once a pass over the task, in an order that changes every pass. An epoch draws as many
    rows as the tasks have together, rounded up to whole steps, in windows of `WINDOW_STEPS` steps or a few more; rows
    of similar length share a batch within a window. How a step's rows are divided among accumulated batches and
    processes does not change which rows they are.

    With `StepShape.tokens_per_batch` the number of steps of an epoch depends on its rows; `__len__` is that of the
    first epoch, and the stream of steps simply goes on.

    Args:
        sizes: Rows of each task, in the data set's order.
        strategy: Says the tasks' shares.
        shape: How large a step is.
        form: A name of `BATCH_FORMS`.
        costs: What rows cost, in the data set's order; None leaves batches as they are drawn.
        seed: Selects the orders.
        epochs: Passes of the whole run, the scale of strategies that change over it.
        run_steps: The run's steps, where they are given instead.
        at_draw: Turns the places of a step's rows and its number into what the data set is asked for; by default the
            places themselves.

    Raises:
        InputError: A task without rows, or settings that do not go together.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        strategy: MixingStrategy,
        shape: StepShape,
        form: str = "mixed",
        costs: RowCosts | None = None,
        seed: int = 42,
        epochs: float = 1.0,
        run_steps: int | None = None,
        at_draw: Callable[[np.ndarray, int], np.ndarray] | None = None,
    ) -> None:
        self.sizes = np.asarray(sizes, dtype=np.int64)
        if not len(self.sizes) or self.sizes.min() < 1:
            raise InputError(f"Every task needs at least one training row; found {list(sizes)}.")
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.strategy, self.shape, self.costs, self.seed = strategy, shape, costs, seed
        self.at_draw = at_draw
        self.form: BatchForm = BATCH_FORMS[form]()
        if shape.tokens_per_batch is not None and (costs is None or form != "mixed"):
            raise InputError("tokens_per_batch goes with mixed batches and length grouping.")
        self.block_rows = self.form.block_rows(shape)
        step_draws = shape.rows // self.block_rows
        # In draws. Under a token budget an epoch is exactly its rows; else it is whole steps.
        total = int(self.sizes.sum())
        self.epoch_steps = -(-total // shape.rows)
        self.epoch_draws = total if shape.tokens_per_batch is not None else self.epoch_steps * step_draws
        self.epoch_windows = max(1, self.epoch_steps // WINDOW_STEPS)
        grid = 1 if shape.tokens_per_batch is not None else step_draws
        cuts = np.arange(self.epoch_windows + 1) * (self.epoch_draws // grid) // self.epoch_windows * grid
        self._cuts: list[int] = cuts.tolist()
        epochs = epochs if run_steps is None else run_steps / self.epoch_steps
        self.run_windows = max(1, round(epochs * self.epoch_windows))
        self._draws = self._sequence()
        self._cached: tuple[int, Steps] = (-1, [])
        # First step of each window met so far, and the first after them.
        self._first_steps = [0]
        self.epoch = 0
        if shape.tokens_per_batch is not None:
            self.epoch_steps = self._step_after(self.epoch_windows - 1)

    def _sequence(self) -> DrawSequence:
        if self.strategy.cyclic:
            return CyclicDraws(len(self.sizes))
        if not self.strategy.changes:
            return FixedDraws(self.strategy.shares(self.sizes), self._cuts[1])
        return ChangingDraws(self.shares_of_window, self.window_bounds)

    def shares_of_window(self, window: int) -> np.ndarray:
        """Return the shares that hold in a window, (tasks,)."""
        if isinstance(self.strategy, DevGapMixing):
            return self.strategy.shares_of_window(window, self.sizes)
        progress = min(window / max(self.run_windows - 1, 1), 1.0)
        return self.strategy.shares(self.sizes, progress)

    def window_bounds(self, window: int) -> tuple[int, int]:
        """Return a window's first draw and the first after it."""
        epoch, place = divmod(window, self.epoch_windows)
        first = epoch * self.epoch_draws
        return first + self._cuts[place], first + self._cuts[place + 1]

    def set_epoch(self, epoch: int) -> None:
        """Say which stretch of steps `__iter__` yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.epoch_steps * self.shape.batches

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.epoch_steps
        for step in range(first, first + self.epoch_steps):
            for batch in self.step(step):
                yield (batch if self.at_draw is None else self.at_draw(batch, step)).tolist()

    def step(self, index: int) -> list[np.ndarray]:
        """Return the batches of a step, each as places in the data set."""
        window = self.window_of(index)
        if self._cached[0] != window:
            self._cached = (window, self._arranged(window))
        return self._cached[1][index - self._first_step(window)]

    def pairs(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tasks and the rows of a step, (rows,) each."""
        places = np.concatenate(self.step(index))
        tasks = np.searchsorted(self.starts, places, side="right") - 1
        return tasks, places - self.starts[tasks]

    def window_of(self, step: int) -> int:
        """Return the window in which a step lies."""
        if self.shape.tokens_per_batch is None:
            epoch, place = divmod(step, self.epoch_steps)
            draw = place * (self.shape.rows // self.block_rows)
            return epoch * self.epoch_windows + bisect_right(self._cuts, draw) - 1
        while self._first_steps[-1] <= step:
            self._step_after(len(self._first_steps) - 1)
        return bisect_right(self._first_steps, step) - 1

    def _first_step(self, window: int) -> int:
        if self.shape.tokens_per_batch is not None:
            return self._first_steps[window]
        epoch, place = divmod(window, self.epoch_windows)
        return epoch * self.epoch_steps + self._cuts[place] * self.block_rows // self.shape.rows

    def _step_after(self, window: int) -> int:
        """The first step after a window, under a token budget."""
        while len(self._first_steps) <= window + 1:
            last = len(self._first_steps) - 1
            self._first_steps.append(self._first_steps[last] + len(self._arranged(last)))
        return self._first_steps[window + 1]

    def _arranged(self, window: int) -> Steps:
        blocks, tasks = self._blocks(window)
        rng = np.random.default_rng([self.seed, window])
        if self.shape.tokens_per_batch is not None:
            assert self.costs is not None
            return token_steps(blocks.reshape(-1), self.shape, self.costs, rng)
        return self.form.steps(blocks, tasks, self.shape, self.costs, rng)

    def _blocks(self, window: int) -> tuple[np.ndarray, np.ndarray]:
        """A window's rows as they are drawn, (blocks, block rows), and each block's task, (blocks,)."""
        tasks, counts = self._draws.window(window, *self.window_bounds(window))
        row_counts = (counts[:, None] * self.block_rows + np.arange(self.block_rows)).reshape(-1)
        row_tasks = np.repeat(tasks, self.block_rows)
        rows = self.starts[row_tasks] + row_order(self.seed, row_tasks, row_counts, self.sizes)
        return rows.reshape(-1, self.block_rows), tasks

    def drawn(self, steps: int) -> np.ndarray:
        """Return how many rows of each task the first `steps` steps hold, (tasks,).

        Exact at a window's end; within a window that is grouped by length, what an even spread would give.
        """
        window = self.window_of(steps)
        first, past = self.window_bounds(window)
        steps_inside = steps - self._first_step(window)
        if self.shape.tokens_per_batch is None:
            total = first + steps_inside * (self.shape.rows // self.block_rows)
        else:
            total = first + (past - first) * steps_inside // max(len(self._arranged(window)), 1)
        return self._draws.counts(window, first, past, total) * self.block_rows

    def preview(self, tasks: Sequence[str], steps: int) -> list[TaskShare]:
        """Return what every task gets of a run of `steps` steps."""
        drawn = self.drawn(steps)
        return [
            TaskShare(name, size, count / max(drawn.sum(), 1), count, count / size)
            for name, size, count in zip(tasks, self.sizes.tolist(), drawn.tolist())
        ]
