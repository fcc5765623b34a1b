"""Intervals of differences on the same rows: they cover what they say, and count each input once."""

import numpy as np
import pytest

from hf_mtl.paired_intervals import AnsweredRows, Difference, mean_difference, paired_scores


def arms(rows: int, generator, first=0.7, second=0.6, metrics=("accuracy",)):
    """Two arms that are right on a share of the same rows, often on the same ones."""
    true = generator.integers(0, 2, rows)
    luck = generator.random(rows)
    mixed = np.where(generator.random(rows) < 0.5, luck, generator.random(rows))
    answers = [np.where(draws < share, true, 1 - true) for draws, share in ((luck, first), (mixed, second))]
    return [AnsweredRows(metrics, answer, true) for answer in answers]


def keys(rows: int, seed: int = 0) -> list[str]:
    return [f"row {seed} {place}" for place in range(rows)]


def test_an_arm_differs_from_itself_by_nothing():
    first, _ = arms(100, np.random.default_rng(0), metrics=("accuracy", "f1", "matthews_correlation"))
    paired = paired_scores(first, first, keys(100))
    assert set(paired.values) == {"", "accuracy", "f1", "matthews_correlation"}
    assert all(paired.difference(name) == (0, 0, 0, 1) for name in paired.values)
    assert paired.difference().sign == 0


@pytest.mark.parametrize(("metric", "rows"), [("accuracy", 60), ("accuracy", 1000), ("matthews_correlation", 400)])
def test_intervals_cover_the_true_difference(metric, rows):
    """In 300 draws of rows, 95 % hold it; the binomial's 99.9 % interval of that is 90 to 99 %."""
    generator = np.random.default_rng(1)
    truth = {"accuracy": 10.0, "matthews_correlation": 20.0}[metric]
    covered = 0
    for draw in range(300):
        difference = paired_scores(*arms(rows, generator, metrics=(metric,)), keys(rows, draw)).difference(metric)
        covered += difference.low <= truth <= difference.high
    assert 0.90 <= covered / 300 <= 0.99


def test_the_interval_is_that_of_the_paired_t_test():
    """Of a mean over many rows: the standard error of the rows' differences."""
    first, second = arms(4000, np.random.default_rng(2))
    difference = paired_scores(first, second, keys(4000)).difference()
    rows = 100 * ((first.predictions == first.references) * 1.0 - (second.predictions == second.references))
    assert difference.value == pytest.approx(rows.mean())
    error = rows.std(ddof=1) / len(rows) ** 0.5
    assert (difference.high - difference.low) / 2 == pytest.approx(2.02 * error, rel=0.3)


def test_rows_of_one_input_count_once():
    first, second = arms(200, np.random.default_rng(3))
    once = paired_scores(first, second, keys(200)).difference()
    four = [
        AnsweredRows(one.metrics, np.tile(one.predictions, 4), np.tile(one.references, 4)) for one in (first, second)
    ]
    repeated = paired_scores(*four, keys(200) * 4).difference()
    assert repeated == pytest.approx(once)


def test_tasks_on_the_same_rows_are_no_further_evidence():
    first, second = arms(800, np.random.default_rng(4))
    one = paired_scores(first, second, keys(800))
    assert mean_difference([one, one]) == pytest.approx(one.difference())
    others = [paired_scores(*arms(800, np.random.default_rng(seed)), keys(800, seed)) for seed in range(5, 9)]
    widths = [task.difference().high - task.difference().low for task in others]
    mean = mean_difference(others)
    assert mean.high - mean.low == pytest.approx(np.mean(widths) / 2, rel=0.35)


@pytest.mark.parametrize(("rows", "sign"), [(1, 0), (2, 0), (4, 0), (12, 1)])
def test_few_rows_tell_nothing(rows, sign):
    """One arm is always right and the other never: by a sign test 6 rows are the fewest that tell."""
    true = np.ones(rows, dtype=int)
    first, second = (AnsweredRows(("accuracy",), answer, true) for answer in (true, 1 - true))
    difference = paired_scores(first, second, keys(rows)).difference()
    assert difference.sign == sign and (difference.p < 0.05) == bool(sign)
    assert str(difference) == ("+100.0 (+100.0 to +100.0)" if sign else "+100.0 (too few rows)")


def test_a_task_of_few_rows_keeps_its_uncertainty_in_the_mean():
    wide, _ = paired_scores(*arms(3, np.random.default_rng(8), first=0.6, second=0.4), keys(3)), None
    assert wide.difference().high - wide.difference().low > 100
    true = np.ones(500, dtype=int)
    same = paired_scores(*[AnsweredRows(("accuracy",), true, true)] * 2, keys(500, 1))
    mean = mean_difference([wide, same, same, same])
    assert mean.high - mean.low == pytest.approx((wide.difference().high - wide.difference().low) / 4, rel=0.3)


def test_differences_are_written_with_their_signs():
    assert str(Difference(1.25, -0.5, 3.0, 0.2)) == "+1.2 (-0.5 to +3.0)"
    assert [Difference(1, low, high, 0).sign for low, high in ((0.1, 2), (-2, -0.1), (-1, 1))] == [1, -1, 0]
