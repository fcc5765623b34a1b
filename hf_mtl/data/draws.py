"""The task and the row of the k-th draw of a mixture: pure functions of the position, nothing stored."""

import heapq
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
# What sums of shares may be off by, in draws.
_ROUNDING = 1e-6
# Four would do for large tasks; in small ones they leave some orders more likely than others.
_FEISTEL_ROUNDS = 8


class _ShareTree:
    """Counts of each task among the first n draws: near exact shares, any n reached at once.

    A binary tree over the tasks; of a node's n draws the left child gets the rounded share of n, so a child's count is
    known from its parent's alone and never falls as n grows. Tasks are split where the halves weigh most alike.
    Rounding errors halve on the way down, so that a task is at most little more than one draw away from its share.

    Args:
        shares: (tasks,) shares of the draws, in task order.
    """

    def __init__(self, shares: np.ndarray) -> None:
        self.num_tasks = len(shares)
        order = np.argsort(-np.asarray(shares, dtype=float), kind="stable")
        sums = np.concatenate([[0.0], np.cumsum(np.asarray(shares, dtype=float)[order])])
        # Every node's children, and the left one's share of the node; a child below 0 is the task -1 - child.
        self._nodes: list[tuple[int, int, float]] = []
        pending: list[tuple[int, int, int, int]] = [(0, self.num_tasks, -1, 0)]
        while pending:
            first, past, parent, side = pending.pop()
            place = len(self._nodes) if past - first > 1 else -1 - int(order[first])
            if parent >= 0:
                node = self._nodes[parent]
                self._nodes[parent] = (place, node[1], node[2]) if side == 0 else (node[0], place, node[2])
            if place >= 0:
                cut = _balanced_cut(sums, first, past)
                total = sums[past] - sums[first]
                self._nodes.append((0, 0, (sums[cut] - sums[first]) / total if total > 0 else 0.5))
                pending += [(first, cut, place, 0), (cut, past, place, 1)]

    def counts(self, total: int) -> np.ndarray:
        """Return how often each task was drawn in the first `total` draws, (tasks,)."""
        drawn = np.zeros(self.num_tasks, dtype=np.int64)
        pending = [(0, total)] if self._nodes else []
        if not pending:
            drawn[0] = total
        while pending:
            node, count = pending.pop()
            left_child, right_child, share = self._nodes[node]
            left = math.floor(count * share + 0.5)
            for child, child_count in ((left_child, left), (right_child, count - left)):
                if child >= 0:
                    pending.append((child, child_count))
                else:
                    drawn[-1 - child] = child_count
        return drawn


def _balanced_cut(sums: np.ndarray, first: int, past: int) -> int:
    """The place between `first` and `past` where the two sides weigh most alike."""
    middle = (sums[first] + sums[past]) / 2
    cut = int(np.clip(np.searchsorted(sums, middle), first + 1, past - 1))
    return cut - 1 if cut - 1 > first and middle - sums[cut - 1] <= sums[cut] - middle else cut


def _within_quota(counts: np.ndarray, owed: np.ndarray, steady: np.ndarray) -> np.ndarray:
    """Return counts less than one draw away from what is owed, with the same sum.

    Bounding counts that never fall by bounds that never fall leaves them so; what that takes from the sum, or adds to
    it, goes to tasks that are drawn often enough between two windows to bear it.

    Args:
        counts: (tasks,) counts near what is owed.
        owed: (tasks,) shares of the draws so far.
        steady: (tasks,) whether a task is drawn at least twice a window.
    """
    lower, upper = np.floor(owed + _ROUNDING), np.ceil(owed - _ROUNDING)
    quota = np.clip(counts, lower, upper).astype(np.int64)
    missing = int(counts.sum() - quota.sum())
    room = np.flatnonzero(steady & (quota < upper) if missing > 0 else steady & (quota > lower))
    # First those that are furthest on the other side.
    room = room[np.argsort((quota - owed)[room] * np.sign(missing), kind="stable")][: abs(missing)]
    quota[room] += np.sign(missing)
    if len(room) < abs(missing):
        return counts
    return quota


def _in_order(before: np.ndarray, counts: np.ndarray, owed: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the task of each draw of a window, so that every task keeps near its share at every draw.

    The earliest deadline first: task t's next draw, its j-th (from 0), may come when what t is owed is above j, and
    must have come when it reaches j + 1. Where the counts at both ends of the window are within quota, there is an
    order in which they are at every draw between them, and this finds it (the fluid schedule satisfies Hall's
    condition).

    Args:
        before: (tasks,) draws before the window.
        counts: (tasks,) draws in the window.
        owed: (tasks,) what each task is owed before the window.
        shares: (tasks,) shares of the window's draws.
    """
    tasks = np.flatnonzero(counts)
    rates = np.maximum(shares[tasks], 1e-300).tolist()
    starts = (before - owed)[tasks].tolist()
    left = counts[tasks].tolist()
    # (when it may come, when it must have come, which of the tasks)
    waiting = [(start / rate, (start + 1) / rate, place) for place, (start, rate) in enumerate(zip(starts, rates))]
    heapq.heapify(waiting)
    ready: list[tuple[float, int]] = []
    places = []
    for draw in range(int(counts.sum())):
        while waiting and (waiting[0][0] < draw + 1 - _ROUNDING or not ready):
            _, deadline, place = heapq.heappop(waiting)
            heapq.heappush(ready, (deadline, place))
        deadline, place = heapq.heappop(ready)
        places.append(place)
        left[place] -= 1
        if left[place]:
            heapq.heappush(waiting, (deadline, deadline + 1 / rates[place], place))
    return tasks[np.array(places, dtype=np.int64)]


def _counted(tasks: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return how often each draw's task was drawn before it."""
    order = np.argsort(tasks, kind="stable")
    counts = np.empty(len(tasks), dtype=np.int64)
    firsts = np.searchsorted(tasks[order], tasks[order])
    counts[order] = np.arange(len(tasks)) - firsts
    return counts + before[tasks]


class DrawSequence(ABC):
    """Says task by task how the draws of a window go on from those before."""

    @abstractmethod
    def window(self, number: int, first: int, past: int) -> tuple[np.ndarray, np.ndarray]:
        """Return task and earlier draws of that task for the draws from `first` to before `past`, one window."""

    @abstractmethod
    def before(self, number: int, first: int) -> np.ndarray:
        """Return each task's draws before window `number`, which begins with draw `first`."""

    def counts(self, number: int, first: int, past: int, total: int) -> np.ndarray:
        """Return each task's draws before draw `total`, which lies in window `number`."""
        before = self.before(number, first)
        if total == first:
            return before
        tasks, _ = self.window(number, first, past)
        return before + np.bincount(tasks[: total - first], minlength=len(before))


class FixedDraws(DrawSequence):
    """Draws whose shares never change: less than one draw away from them at every draw.

    Args:
        shares: (tasks,) shares.
        window_draws: About how many draws a window has.
    """

    def __init__(self, shares: np.ndarray, window_draws: int) -> None:
        self.shares = np.asarray(shares, dtype=float)
        self.tree = _ShareTree(self.shares)
        self.steady = self.shares * window_draws >= 2 + _ROUNDING

    def window(self, number: int, first: int, past: int) -> tuple[np.ndarray, np.ndarray]:
        before = self.before(number, first)
        counts = self.before(number + 1, past) - before
        tasks = _in_order(before, counts, first * self.shares, self.shares)
        return tasks, _counted(tasks, before)

    def before(self, number: int, first: int) -> np.ndarray:
        return _within_quota(self.tree.counts(first), first * self.shares, self.steady)


class CyclicDraws(DrawSequence):
    """One draw of every task in turn.

    Args:
        num_tasks: How many tasks.
    """

    def __init__(self, num_tasks: int) -> None:
        self.num_tasks = num_tasks

    def window(self, number: int, first: int, past: int) -> tuple[np.ndarray, np.ndarray]:
        counts, tasks = np.divmod(np.arange(first, past), self.num_tasks)
        return tasks, counts

    def before(self, number: int, first: int) -> np.ndarray:
        return (first + self.num_tasks - 1 - np.arange(self.num_tasks)) // self.num_tasks


class ChangingDraws(DrawSequence):
    """Draws whose shares change at the ends of windows.

    What a task is owed is the sum of its shares over all draws so far; at the end of a window it has had that to one
    draw, unless its share fell so fast that it had more before. A window's counts follow from all windows before it,
    which takes some 20 microseconds for each.

    Args:
        shares: Returns a window's shares, (tasks,).
        bounds: Returns a window's first draw and the first draw after it.
    """

    def __init__(self, shares: Callable[[int], np.ndarray], bounds: Callable[[int], tuple[int, int]]) -> None:
        self.shares = shares
        self.bounds = bounds
        # A window, each task's draws before it, and what each is owed before it.
        self._reached: tuple[int, np.ndarray, np.ndarray] | None = None

    def window(self, number: int, first: int, past: int) -> tuple[np.ndarray, np.ndarray]:
        before, owed = self._at(number)
        shares = self.shares(number)
        counts = _apportioned(owed + shares * (past - first) - before, past - first)
        tasks = _in_order(before, counts, owed, shares)
        return tasks, _counted(tasks, before)

    def before(self, number: int, first: int) -> np.ndarray:
        return self._at(number)[0]

    def _at(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Each task's draws before a window, and what each is owed before it."""
        if self._reached is None or self._reached[0] > number:
            zeros = np.zeros(len(self.shares(0)))
            self._reached = (0, zeros.astype(np.int64), zeros)
        window, drawn, owed = self._reached
        while window < number:
            first, past = self.bounds(window)
            owed = owed + self.shares(window) * (past - first)
            drawn = drawn + _apportioned(owed - drawn, past - first)
            window += 1
        self._reached = (window, drawn, owed)
        return drawn, owed


def _apportioned(owed: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers near what is owed that sum to `total`, by largest remainder; nobody gets less than nothing."""
    whole = np.floor(np.maximum(owed, 0.0)).astype(np.int64)
    rest = total - int(whole.sum())
    order = np.argsort(-(owed - whole), kind="stable")
    if rest >= 0:
        whole[order[:rest]] += 1
        return whole
    # Others have had more than they were owed, so there is less to give: the smallest remainders wait.
    for place in order[::-1]:
        given = min(int(whole[place]), -rest)
        whole[place] -= min(given, 1)
        rest += min(given, 1)
        if rest == 0:
            break
    return whole


def row_order(seed: int, tasks: np.ndarray, counts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the row that a task's n-th draw is: every row once a pass, in another order every pass.

    Args:
        seed: Selects the orders.
        tasks: (draws,) task of each draw.
        counts: (draws,) how often the task was drawn before.
        sizes: (tasks,) rows of each task.
    """
    row_counts = sizes[tasks]
    passes, within = np.divmod(counts, row_counts)
    with np.errstate(over="ignore"):
        key = _mixed(np.uint64(seed) * _GOLDEN + tasks.astype(np.uint64))
        key = _mixed(key + passes.astype(np.uint64) * _GOLDEN)
    return _permuted(within, row_counts, key)


def _permuted(index: np.ndarray, size: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Return the place of each index in the permutation of `size` rows that `key` selects, without storing it.

    A Feistel network (Luby and Rackoff 1988) over the next power of four, walked until the place is inside.

    Args:
        index: (n,) places below `size`.
        size: (n,) numbers of rows.
        key: (n,) uint64.
    """
    bits = np.frexp(np.maximum(size - 1, 1).astype(float))[1]
    half = np.maximum((bits + 1) // 2, 1).astype(np.uint64)
    mask = (np.uint64(1) << half) - np.uint64(1)
    place = index.astype(np.uint64)
    outside = np.arange(len(place))
    with np.errstate(over="ignore"):
        rounds = [_mixed(key + np.uint64(number + 1) * _GOLDEN) for number in range(_FEISTEL_ROUNDS)]
        while len(outside):
            width, low_bits = half[outside], mask[outside]
            high, low = place[outside] >> width, place[outside] & low_bits
            for round_key in rounds:
                high, low = low, high ^ (_mixed(low + round_key[outside]) & low_bits)
            place[outside] = (high << width) | low
            outside = outside[place[outside] >= size[outside].astype(np.uint64)]
    return place.astype(np.int64)


def _mixed(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
