"""Which rows make up which step: a pure function of the seed, the step and the tasks' sizes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from ..modeling import InputError

# Rows are sorted by length inside windows of at least this many batches (of a whole epoch where that is shorter).
WINDOW_BATCHES = 50


class MixingStrategy(ABC):
    """Says each task's share of the drawn rows."""

    @abstractmethod
    def shares(self, sizes: np.ndarray) -> np.ndarray:
        """Return the tasks' shares, which sum to 1, for their numbers of rows."""


@dataclass
class ProportionalMixing(MixingStrategy):
    """A task's share is its share of the rows: every row is seen once a pass."""

    def shares(self, sizes: np.ndarray) -> np.ndarray:
        return sizes / sizes.sum()


@dataclass
class TemperatureMixing(MixingStrategy):
    """p_t = n_t^(1/temperature) / sum (Raffel et al. 2020, section 3.5.2): 1 is proportional, large is uniform."""

    temperature: float = 2.0

    def shares(self, sizes: np.ndarray) -> np.ndarray:
        powers = sizes.astype(float) ** (1.0 / self.temperature)
        return powers / powers.sum()


# Each is built from the training arguments' `temperature`.
MIXING_STRATEGIES: dict[str, Callable[[float], MixingStrategy]] = {
    "proportional": lambda temperature: ProportionalMixing(),
    "temperature": TemperatureMixing,
}


@dataclass(frozen=True)
class TaskShare:
    """A line of the mixture table: what a task gets of a training run."""

    task: str
    rows: int
    share: float
    draws: int
    passes: float


def preview_shares(sizes: Mapping[str, int], strategy: MixingStrategy, total_draws: int) -> list[TaskShare]:
    """Return what every task gets of `total_draws` rows."""
    shares = strategy.shares(np.array(list(sizes.values())))
    return [
        TaskShare(name, size, float(share), round(total_draws * float(share)), total_draws * float(share) / size)
        for (name, size), share in zip(sizes.items(), shares)
    ]


class ShareTree:
    """Which task the k-th draw goes to: exact shares without randomness, any position reached at once.

    A binary tree over the tasks; of a node's n draws the left child gets the rounded share of n, so a child's count is
    known from its parent's alone, never falls as n grows, and every task stays near its share. Tasks are split where
    the halves weigh most alike.

    Args:
        shares: (tasks,) shares of the draws, in task order.
    """

    def __init__(self, shares: np.ndarray) -> None:
        self.shares = np.asarray(shares, dtype=float)

    def draws(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return for each position of the draw sequence its task and how often that task was drawn before."""
        order = np.argsort(-self.shares, kind="stable")
        tasks = np.empty(len(positions), dtype=np.int64)
        counts = np.empty(len(positions), dtype=np.int64)
        pending = [(order, np.arange(len(positions)), np.asarray(positions, dtype=np.int64))]
        while pending:
            members, places, local = pending.pop()
            if not len(places):
                continue
            if len(members) == 1:
                tasks[places], counts[places] = members[0], local
                continue
            weights = self.shares[members]
            cut = _balanced_cut(weights)
            left_share = weights[:cut].sum() / weights.sum()
            before = np.floor(local * left_share + 0.5).astype(np.int64)
            after = np.floor((local + 1) * left_share + 0.5).astype(np.int64)
            left = after > before
            pending.append((members[:cut], places[left], before[left]))
            pending.append((members[cut:], places[~left], (local - before)[~left]))
        return tasks, counts


def _balanced_cut(weights: np.ndarray) -> int:
    halves = np.abs(np.cumsum(weights)[:-1] - weights.sum() / 2)
    return int(halves.argmin()) + 1


def permuted(index: np.ndarray, size: int, key: int) -> np.ndarray:
    """Return the place of each index in a permutation of `size` rows that `key` selects, without storing it.

    A Feistel network over the next power of four, walked until the place is inside.
    """
    half = max(1, math.ceil(math.log2(max(size, 2)) / 2))
    mask = np.uint64((1 << half) - 1)
    rounds = np.random.SeedSequence(key).generate_state(4, dtype=np.uint64)
    place = index.astype(np.uint64)
    outside = np.ones(len(place), dtype=bool)
    while outside.any():
        high, low = place[outside] >> np.uint64(half), place[outside] & mask
        for round_key in rounds:
            high, low = low, high ^ (_mixed(low + round_key) & mask)
        place[outside] = (high << np.uint64(half)) | low
        outside = place >= size
    return place.astype(np.int64)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


class MixtureBatchSampler(Sampler[list[int]]):
    """Batches of a mixture; batch k is computed from (seed, k, sizes, shares) alone.

    Every row of a task comes once a pass over the task, in an order that changes every pass. Rows of similar length
    share a batch: an epoch is cut into windows of `WINDOW_BATCHES` batches or a few more, and the rows of a window are
    sorted by length, cut into batches, and the batches shuffled. No window reaches past its epoch, so that an epoch
    holds the rows that were drawn for it.

    Args:
        sizes: Rows of each task, in the data set's order.
        shares: Each task's share of the draws.
        batch_size: Rows in a batch.
        batches_per_epoch: Batches that `__iter__` yields; `set_epoch` moves on to the next ones.
        lengths: Cost of every row, in the data set's order; None leaves batches ungrouped.
        seed: Selects the orders.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        shares: np.ndarray,
        batch_size: int,
        batches_per_epoch: int,
        lengths: Sequence[int] | None = None,
        seed: int = 42,
    ) -> None:
        if min(sizes) < 1:
            raise InputError(f"Every task needs at least one training row; found {list(sizes)}.")
        self.sizes = np.asarray(sizes, dtype=np.int64)
        self.starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        self.tree = ShareTree(shares)
        self.batch_size = batch_size
        self.batches_per_epoch = batches_per_epoch
        self.lengths = None if lengths is None else np.asarray(lengths)
        self.seed = seed
        self.epoch = 0
        self._window: tuple[int, np.ndarray] = (-1, np.empty(0))

    def set_epoch(self, epoch: int) -> None:
        """Say which stretch of batches `__iter__` yields."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.batches_per_epoch

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.batches_per_epoch
        for index in range(first, first + self.batches_per_epoch):
            yield self.batch(index).tolist()

    def batch(self, index: int) -> np.ndarray:
        """Return the rows of batch `index`, as places in the data set."""
        epoch, place = divmod(index, self.batches_per_epoch)
        windows = max(1, self.batches_per_epoch // WINDOW_BATCHES)
        bounds = np.arange(windows + 1) * self.batches_per_epoch // windows
        number = int(np.searchsorted(bounds, place, side="right")) - 1
        key = epoch * windows + number
        if self._window[0] != key:
            first, past = epoch * self.batches_per_epoch + bounds[number : number + 2]
            self._window = (key, self._window_batches(key, int(first), int(past)))
        return self._window[1][place - bounds[number]]

    def draw(self, positions: np.ndarray) -> np.ndarray:
        """Return the rows at positions of the draw sequence, as places in the data set."""
        tasks, counts = self.tree.draws(positions)
        rows = np.empty(len(positions), dtype=np.int64)
        passes, within = counts // self.sizes[tasks], counts % self.sizes[tasks]
        for task, turn in sorted(set(zip(tasks.tolist(), passes.tolist()))):
            here = (tasks == task) & (passes == turn)
            key = int(np.random.SeedSequence([self.seed, task, turn]).generate_state(1)[0])
            rows[here] = self.starts[task] + permuted(within[here], int(self.sizes[task]), key)
        return rows

    def _window_batches(self, key: int, first: int, past: int) -> np.ndarray:
        """The batches from `first` to before `past`, (batches, batch_size)."""
        rows = self.draw(np.arange(first * self.batch_size, past * self.batch_size))
        if self.lengths is None:
            return rows.reshape(-1, self.batch_size)
        generator = np.random.default_rng([self.seed, key])
        # Shuffled before the stable sort, so that rows of equal length meet others every time.
        rows = generator.permutation(rows)
        rows = rows[np.argsort(self.lengths[rows], kind="stable")].reshape(-1, self.batch_size)
        return generator.permutation(rows)
