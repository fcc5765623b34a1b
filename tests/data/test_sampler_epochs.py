"""What the batches of whole epochs hold, task by task."""

from collections import Counter

import numpy as np
import pytest

from hf_mtl.data.sampler import MIXING_STRATEGIES, WINDOW_BATCHES, MixtureBatchSampler

SIZES = [600, 150, 42, 8]


def sampler(sizes, strategy="proportional", temperature=1.0, batch_size=8, grouped=False, seed=3):
    shares = MIXING_STRATEGIES[strategy](temperature).shares(np.array(sizes))
    lengths = np.random.default_rng(0).integers(5, 60, sum(sizes)) if grouped else None
    return MixtureBatchSampler(sizes, shares, batch_size, -(-sum(sizes) // batch_size), lengths=lengths, seed=seed)


def epoch_rows(own: MixtureBatchSampler, epoch: int) -> list[int]:
    own.set_epoch(epoch)
    return [row for batch in own for row in batch]


@pytest.mark.parametrize("grouped", [False, True], ids=["plain", "grouped"])
@pytest.mark.parametrize("sizes", [SIZES, [40, 24], [2000, 48]], ids=str)
def test_an_epoch_holds_every_row_once(sizes, grouped):
    """The tasks' rows fill whole batches here, so that an epoch is exactly one pass over each."""
    own = sampler(sizes, grouped=grouped)
    assert sum(sizes) % own.batch_size == 0
    epochs = [epoch_rows(own, epoch) for epoch in range(3)]
    for rows in epochs:
        assert Counter(rows) == Counter(range(sum(sizes)))
    assert epochs[0] != epochs[1]
    assert epochs[1] != epochs[2]


@pytest.mark.parametrize("temperature", [2.0, 5.0, 1e6])
def test_every_task_goes_through_its_rows_in_whole_passes(temperature):
    """Whatever the shares, a task draws none of its rows again before it has drawn all of them."""
    own = sampler(SIZES, "temperature", temperature)
    drawn = own.draw(np.arange(6000))
    for start, size in zip(own.starts, SIZES):
        rows = drawn[(drawn >= start) & (drawn < start + size)]
        assert len(rows) >= 2 * size
        passes = [rows[first : first + size].tolist() for first in range(0, len(rows) - size + 1, size)]
        assert all(sorted(turn) == list(range(start, start + size)) for turn in passes)
        assert len({tuple(turn) for turn in passes}) > 1


def test_every_temperature_draws_its_shares():
    for temperature in (1.0, 2.0, 5.0, 1e6):
        own = sampler(SIZES, "temperature", temperature)
        drawn = own.draw(np.arange(10_000))
        counts = [int(((drawn >= start) & (drawn < start + size)).sum()) for start, size in zip(own.starts, SIZES)]
        powers = np.array(SIZES, dtype=float) ** (1 / temperature)
        assert np.abs(np.array(counts) - 10_000 * powers / powers.sum()).max() <= 2


def test_the_data_order_is_the_seeds():
    rows = [epoch_rows(sampler(SIZES, grouped=True, seed=seed), 0) for seed in (1, 1, 2)]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_batches_are_drawn_from_all_tasks_from_the_start():
    """A task of 1 in 19 rows waits for no other's pass to end."""
    own = sampler([1800, 100])
    drawn = own.draw(np.arange(WINDOW_BATCHES * own.batch_size))
    places = np.flatnonzero(drawn >= 1800)
    assert len(places) > 20
    assert np.diff(places).max() <= 2 * 19
