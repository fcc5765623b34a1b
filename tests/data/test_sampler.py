"""The mixture is a pure function: exact shares, every row once a pass, any batch at once."""

import numpy as np
import pytest

from hf_mtl.data.sampler import (
    MIXING_STRATEGIES,
    MixtureBatchSampler,
    ShareTree,
    permuted,
    preview_shares,
)

SIZES = [100, 37, 9]
EPOCH = 19


def sampler(lengths=None, seed=1, batch_size=8, sizes=SIZES) -> MixtureBatchSampler:
    shares = MIXING_STRATEGIES["proportional"](1.0).shares(np.array(sizes))
    return MixtureBatchSampler(sizes, shares, batch_size, batches_per_epoch=EPOCH, lengths=lengths, seed=seed)


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_permuted_is_a_permutation(size):
    found = permuted(np.arange(size), size, key=7)
    assert sorted(found) == list(range(size))
    if size > 3:
        assert (found != permuted(np.arange(size), size, key=8)).any()


@pytest.mark.parametrize("sizes", [SIZES, [1], [1, 1, 1], [1000, 3]])
def test_every_row_comes_once_a_pass(sizes):
    own, total = sampler(sizes=sizes), sum(sizes)
    passes = [own.draw(np.arange(turn * total, (turn + 1) * total)) for turn in range(3)]
    for drawn in passes:
        assert sorted(drawn) == list(range(total))
    if total > 3:
        assert (passes[0] != passes[1]).any()


def test_batches_are_a_pure_function():
    lengths = np.random.default_rng(0).integers(5, 60, sum(SIZES))
    first, second = sampler(lengths), sampler(lengths)
    forwards = [first.batch(index).tolist() for index in range(200)]
    backwards = [second.batch(index).tolist() for index in reversed(range(200))][::-1]
    assert forwards == backwards
    assert forwards != [sampler(lengths, seed=2).batch(index).tolist() for index in range(200)]


def test_epochs_are_stretches_of_one_sequence():
    own = sampler()
    own.set_epoch(2)
    assert list(own) == [own.batch(index).tolist() for index in range(38, 57)]


def test_shares_are_exact_to_one_draw():
    shares = np.random.default_rng(0).dirichlet(np.full(1000, 0.1)) + 1e-6
    shares /= shares.sum()
    tasks, counts = ShareTree(shares).draws(np.arange(20_000))
    drawn = np.zeros(1000)
    for position, (task, count) in enumerate(zip(tasks, counts)):
        assert drawn[task] == count
        drawn[task] += 1
        if position % 100 == 0:
            assert np.abs(drawn - (position + 1) * shares).max() <= 1


def test_temperatures():
    sizes = np.array(SIZES)
    proportional = MIXING_STRATEGIES["proportional"](1.0).shares(sizes)
    np.testing.assert_allclose(MIXING_STRATEGIES["temperature"](1.0).shares(sizes), proportional)
    np.testing.assert_allclose(MIXING_STRATEGIES["temperature"](1e9).shares(sizes), np.full(3, 1 / 3), atol=1e-6)
    np.testing.assert_allclose(
        MIXING_STRATEGIES["temperature"](2.0).shares(sizes) ** 2 / sizes, [0.01 / 3.61] * 3, rtol=0.1
    )


@pytest.mark.parametrize("name", MIXING_STRATEGIES)
def test_preview_is_what_is_drawn(name):
    strategy = MIXING_STRATEGIES[name](2.0)
    shares = strategy.shares(np.array(SIZES))
    tasks, _ = ShareTree(shares).draws(np.arange(500))
    for index, share in enumerate(preview_shares(dict(zip("abc", SIZES)), strategy, 500)):
        assert abs((tasks == index).sum() - share.draws) <= 1
        assert share.passes == pytest.approx(share.draws / SIZES[index], abs=0.5)


def test_length_grouping_saves_padding_and_loses_no_row():
    lengths = np.random.default_rng(0).integers(5, 60, sum(SIZES))
    grouped, plain = sampler(lengths), sampler()

    def padding(own: MixtureBatchSampler) -> int:
        batches = [lengths[own.batch(index)] for index in range(EPOCH)]
        return sum(int(batch.max()) * len(batch) - int(batch.sum()) for batch in batches)

    rows = [np.concatenate([own.batch(index) for index in range(EPOCH)]) for own in (grouped, plain)]
    assert sorted(rows[0]) == sorted(rows[1])
    assert padding(grouped) < padding(plain) / 4
