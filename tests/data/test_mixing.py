"""Every mixing strategy gives the shares of its formula."""

import numpy as np
import pytest

from hf_mtl import InputError
from hf_mtl.data.mixing import MIXING_STRATEGIES, CallableMixing, DevGapMixing, MixingOptions

SIZES = np.array([600, 150, 42, 8])
TASKS = ("a", "b", "c", "d")
TARGETS = dict.fromkeys(TASKS, 80.0)


def strategy(name, **options):
    return MIXING_STRATEGIES[name](MixingOptions(tasks=TASKS, target_scores=TARGETS, **options))


def shares(name, progress=0.0, **options):
    return strategy(name, **options).shares(SIZES, progress)


@pytest.mark.parametrize("name", MIXING_STRATEGIES)
def test_shares_are_shares(name):
    for progress in (0.0, 0.3, 1.0):
        found = shares(name, progress)
        assert found.shape == SIZES.shape
        assert found.min() > 0
        assert found.sum() == pytest.approx(1)
        assert strategy(name).changes or (found == shares(name)).all()


def test_limits_of_the_formulas():
    proportional, uniform = SIZES / SIZES.sum(), np.full(4, 0.25)
    np.testing.assert_allclose(shares("proportional"), proportional)
    np.testing.assert_allclose(shares("uniform"), uniform)
    np.testing.assert_allclose(shares("round_robin"), uniform)
    np.testing.assert_allclose(shares("temperature", temperature=1.0), proportional)
    np.testing.assert_allclose(shares("temperature", temperature=1e9), uniform, atol=1e-6)
    np.testing.assert_allclose(shares("power", power=1.0), proportional)
    np.testing.assert_allclose(shares("power", power=0.0), uniform)
    np.testing.assert_allclose(shares("power", power=0.5), shares("temperature", temperature=2.0))
    np.testing.assert_allclose(shares("capped", cap=600), proportional)
    np.testing.assert_allclose(shares("capped", cap=8), uniform)
    np.testing.assert_allclose(shares("capped", cap=100), np.array([100, 100, 42, 8]) / 250)
    np.testing.assert_allclose(shares("annealed", 0.0), proportional)
    np.testing.assert_allclose(shares("annealed", 1.0), shares("power", power=0.2))
    np.testing.assert_allclose(shares("annealed", 0.5), shares("power", power=0.6))
    np.testing.assert_allclose(shares("explicit", shares={"a": 3, "b": 0.5, "c": 0.5, "d": 1}), [0.6, 0.1, 0.1, 0.2])


def test_shares_of_huge_tasks_do_not_overflow():
    sizes = np.array([10**9, 1])
    for name in ("power", "temperature", "annealed"):
        assert np.isfinite(strategy(name, power=40.0, temperature=0.01).shares(sizes, 1.0)).all()


def test_a_function_is_a_strategy():
    mixing = CallableMixing(lambda sizes, progress: [1.0, 1.0, 1.0, 5.0 * progress])
    np.testing.assert_allclose(mixing.shares(SIZES, 1.0), [0.125, 0.125, 0.125, 0.625])
    np.testing.assert_allclose(mixing.shares(SIZES, 0.0), [1 / 3, 1 / 3, 1 / 3, 0])


@pytest.mark.parametrize("wrong", [[1.0], [0.0] * 4, [1, 1, 1, -1], [1, 1, 1, float("nan")]], ids=str)
def test_a_function_that_returns_no_shares_is_refused(wrong):
    with pytest.raises(InputError, match="expected 4 numbers"):
        CallableMixing(lambda sizes, progress: wrong).shares(SIZES)


def test_dev_gap_follows_the_distance_to_the_targets_two_windows_later():
    mixing = strategy("dev_gap")
    assert isinstance(mixing, DevGapMixing)
    mixing.update(3, {"a": 80.0, "b": 71.0, "c": 90.0, "d": 61.0})
    np.testing.assert_allclose(mixing.shares_of_window(4, SIZES), [0.25] * 4)
    np.testing.assert_allclose(mixing.shares_of_window(5, SIZES), np.array([1, 10, 1, 20]) / 32)
    mixing.update(9, dict.fromkeys(TASKS, 80.0))
    np.testing.assert_allclose(mixing.shares_of_window(10, SIZES), np.array([1, 10, 1, 20]) / 32)
    np.testing.assert_allclose(mixing.shares_of_window(11, SIZES), [0.25] * 4)


def test_missing_settings_are_named():
    with pytest.raises(InputError, match="target_scores"):
        MIXING_STRATEGIES["dev_gap"](MixingOptions(tasks=TASKS, target_scores={"a": 1.0}))
    with pytest.raises(InputError, match="share"):
        shares("explicit", shares=dict.fromkeys(TASKS, 0.0))
