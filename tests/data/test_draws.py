"""Which task and row the k-th draw is: exact shares, every row once a pass, any position at once."""

import numpy as np
import pytest

from hf_mtl.data.draws import ChangingDraws, CyclicDraws, FixedDraws, _permuted, _ShareTree, row_order


def skewed_shares(tasks: int) -> np.ndarray:
    shares = np.random.default_rng(0).dirichlet(np.full(tasks, 0.1)) + 1e-6
    return shares / shares.sum()


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_permuted_is_a_permutation(size):
    index, sizes = np.arange(size), np.full(size, size)
    found = _permuted(index, sizes, np.full(size, 7, dtype=np.uint64))
    assert sorted(found) == list(range(size))
    if size > 3:
        assert (found != _permuted(index, sizes, np.full(size, 8, dtype=np.uint64))).any()


def test_a_permutation_is_as_if_shuffled():
    """Over many keys every row comes to every place equally often (chi-squared, 5 standard deviations)."""
    size, keys = 12, 20_000
    index, key = np.tile(np.arange(size), keys), np.repeat(np.arange(keys, dtype=np.uint64) * 977 + 5, size)
    places = _permuted(index, np.full(len(index), size), key)
    counts = np.zeros((size, size))
    np.add.at(counts, (index, places), 1)
    expected = keys / size
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = (size - 1) ** 2
    assert abs(chi_squared - freedom) < 5 * (2 * freedom) ** 0.5


def test_permutations_of_many_sizes_at_once():
    sizes = np.array([5, 1000, 1, 17])
    tasks = np.repeat(np.arange(4), sizes)
    within = np.concatenate([np.arange(size) for size in sizes])
    rows = row_order(3, tasks, within, sizes)
    for task, size in enumerate(sizes):
        assert sorted(rows[tasks == task]) == list(range(size))


def test_every_pass_has_another_order():
    counts = np.arange(300)
    rows = row_order(3, np.zeros(300, dtype=np.int64), counts, np.array([100]))
    passes = rows.reshape(3, 100).tolist()
    assert all(sorted(turn) == list(range(100)) for turn in passes)
    assert len({tuple(turn) for turn in passes}) == 3
    assert (row_order(4, np.zeros(300, dtype=np.int64), counts, np.array([100])) != rows).any()


def share_sets() -> dict[str, np.ndarray]:
    """Few and many tasks, alike and skewed by orders of magnitude."""
    generator = np.random.default_rng(1)
    found = {
        "one": np.ones(1),
        "two": np.array([0.3, 0.7]),
        "seven alike": np.ones(7),
        "four": np.array([600, 150, 42, 8.0]),
        "one of little": np.array([1e6, 1.0]),
        "twenty": generator.dirichlet(np.full(20, 0.5)),
        "twenty more": generator.dirichlet(np.full(20, 0.5)),
        "zipf": 1 / np.arange(1, 1001) ** 1.5,
        "lognormal": generator.lognormal(0, 1.5, 1000),
        "more than a window": np.ones(3000),
    }
    return {name: weights / weights.sum() for name, weights in found.items()}


def check_every_draw(shares: np.ndarray, tasks: np.ndarray, counts: np.ndarray) -> None:
    """At every draw every task is at most one draw away from its share."""
    order = np.argsort(tasks, kind="stable")
    cuts = np.searchsorted(tasks[order], np.arange(len(shares) + 1))
    for task, share in enumerate(shares):
        own = order[cuts[task] : cuts[task + 1]]
        after = np.arange(1, len(own) + 1)
        assert (counts[own] == after - 1).all()
        # Between two draws of a task what it is owed only grows, so the extremes lie right before and after a draw.
        assert np.abs(after - (own + 1) * share).max(initial=0) <= 1
        assert np.abs(after - 1 - own * share).max(initial=0) <= 1
        assert abs(len(own) - len(tasks) * share) <= 1


@pytest.mark.parametrize("name", share_sets())
def test_every_task_stays_within_one_draw_of_its_share(name):
    shares = share_sets()[name]
    check_every_draw(shares, *windows(FixedDraws(shares, 1600), 1600, 60))


@pytest.mark.slow
def test_a_thousand_skewed_tasks_stay_within_one_draw_for_a_hundred_thousand_steps():
    """Steps of 32 rows, in windows of 50."""
    shares = skewed_shares(1000)
    check_every_draw(shares, *windows(FixedDraws(shares, 1600), 1600, 2000))


def test_any_window_is_reached_at_once():
    shares, far = skewed_shares(50), 10**9
    draws = FixedDraws(shares, 1600)
    tasks, counts = draws.window(far, far * 1600, (far + 1) * 1600)
    before = draws.before(far, far * 1600)
    for task in np.unique(tasks):
        own = counts[tasks == task]
        assert (own == before[task] + np.arange(len(own))).all()
    assert before.sum() == far * 1600
    assert np.abs(before - far * 1600 * shares).max() < 1


def test_a_task_without_share_is_never_drawn():
    tasks, _ = windows(FixedDraws(np.array([0.5, 0.0, 0.5]), 100), 100, 10)
    assert set(tasks.tolist()) == {0, 2}


@pytest.mark.parametrize("tasks", [1, 2, 3, 1000])
def test_a_trees_counts_never_fall(tasks):
    tree = _ShareTree(skewed_shares(tasks))
    counts = np.array([tree.counts(total) for total in range(0, 6000, 7)])
    assert (counts.sum(axis=1) == np.arange(0, 6000, 7)).all()
    assert (np.diff(counts, axis=0) >= 0).all()


def windows(draws, size, number):
    found = [draws.window(window, window * size, (window + 1) * size) for window in range(number)]
    return np.concatenate([tasks for tasks, _ in found]), np.concatenate([counts for _, counts in found])


def test_changing_shares_are_owed_in_full():
    """At the end of every window each task has had what its shares so far add up to, to one draw."""
    size, number, tasks = 1600, 60, 12

    def shares(window):
        weights = skewed_shares(tasks) ** (1 - 0.8 * window / number)
        return weights / weights.sum()

    draws = ChangingDraws(shares, lambda window: (window * size, (window + 1) * size))
    drawn, counts = windows(draws, size, number)
    owed, had = np.zeros(tasks), np.zeros(tasks, dtype=np.int64)
    for window in range(number):
        here = slice(window * size, (window + 1) * size)
        owed += shares(window) * size
        had += np.bincount(drawn[here], minlength=tasks)
        assert np.abs(had - owed).max() <= 1
        assert (draws.before(window + 1, (window + 1) * size) == had).all()
    for task in range(tasks):
        assert (counts[drawn == task] == np.arange(had[task])).all()
    # Backwards, from the middle: the same.
    again = draws.window(7, 7 * size, 8 * size)
    assert (again[0] == drawn[7 * size : 8 * size]).all()
    assert (again[1] == counts[7 * size : 8 * size]).all()


def test_shares_that_jump_lose_no_draw():
    """Shares that swap every window, in windows smaller than the number of tasks."""

    def shares(window):
        own = np.where(np.arange(40) % 2 == window % 2, 1.0, 0.0)
        return own / own.sum()

    draws = ChangingDraws(shares, lambda window: (window * 7, (window + 1) * 7))
    drawn, counts = windows(draws, 7, 200)
    assert len(drawn) == 1400
    for task in range(40):
        assert (counts[drawn == task] == np.arange((drawn == task).sum())).all()
        assert abs((drawn == task).sum() - 35) <= 2


def test_turns_are_in_order():
    draws = CyclicDraws(3)
    tasks, counts = draws.window(0, 4, 11)
    assert tasks.tolist() == [1, 2, 0, 1, 2, 0, 1]
    assert counts.tolist() == [1, 1, 2, 2, 2, 3, 3]
    assert draws.before(1, 11).tolist() == [4, 4, 3]
    assert draws.counts(0, 4, 11, 9).tolist() == [3, 3, 3]
