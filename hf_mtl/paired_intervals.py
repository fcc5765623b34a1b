"""Differences of scores on the same rows, with intervals that say what other rows would make of them.

The delete-a-group jackknife: rows are dealt to G groups, theta is a difference of scores, theta_g the same without the
rows of group g, and

    variance = (G - 1) / G sum_g (theta_g - mean(theta_g))^2

(Kott 2001, The delete-a-group jackknife; with as many groups as rows it is Tukey's jackknife). It holds for any metric
that is smooth in its rows, costs G scores, and draws nothing. Both arms answer the same rows, so what makes a row hard
for both cancels; rows of one input share a group, in all tasks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash
from scipy.stats import t as student

from .metrics import METRICS, Rows, compute, task_score

LEVEL = 0.95
_GROUPS = 40
# By a sign test, 6 rows that all say the same are the fewest that tell anything at this level.
_LEAST_FREEDOM = 5


@dataclass(frozen=True)
class AnsweredRows:
    """A task's rows as the metrics read them.

    Args:
        metrics: Names in `METRICS`.
        predictions: Of each row, what was answered.
        references: Of each row, what is true.
        scores: Of each row, what class 1 of two or each label was given; see `compute`.
    """

    metrics: Sequence[str]
    predictions: Rows
    references: Rows
    scores: Rows | None = None

    def score(self, places: np.ndarray | None = None) -> dict[str, float]:
        """Return the score of each metric, 0-100, on all rows or on those at some places."""
        if places is None:
            return compute(self.metrics, self.predictions, self.references, self.scores)
        predictions, references = _at(self.predictions, places), _at(self.references, places)
        return compute(
            self.metrics, predictions, references, None if self.scores is None else _at(self.scores, places)
        )


class Difference(NamedTuple):
    """A difference of two scores in points, and its interval at `LEVEL`; endless where there are too few rows.

    Args:
        value: The difference.
        low: Where the interval begins.
        high: Where it ends.
        p: Of a difference of 0, two-sided.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out 0, else 0."""
        return int(self.low > 0) - int(self.high < 0)

    def __str__(self) -> str:
        if np.isinf(self.low):
            return f"{self.value:+.1f} (too few rows)"
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


@dataclass(frozen=True)
class PairedScores:
    """Two arms' difference on one task.

    Args:
        values: By metric, and of the task's score under ``""``.
        without: The same without each group of rows (groups,); NaN where a group has no row.
    """

    values: Mapping[str, float]
    without: Mapping[str, np.ndarray]

    def difference(self, metric: str = "") -> Difference:
        """Return the difference of a metric, or of the task's score."""
        groups, variance = _variance(self.without[metric])
        return _interval(self.values[metric], variance, groups - 1)


def paired_scores(first: AnsweredRows, second: AnsweredRows, keys: Sequence[str]) -> PairedScores:
    """Return what the first arm scores above the second, of the metrics that both have.

    Args:
        first: An arm's answers.
        second: Another's, row by row of the same rows.
        keys: Each row's input; rows of one input stand and fall together.
    """
    groups = np.array([xxhash.xxh3_64_intdigest(key.encode("utf-8", "surrogatepass")) % _GROUPS for key in keys])
    values = _differences(first, second, None)
    without = {name: np.full(_GROUPS, np.nan) for name in values}
    for group in np.unique(groups).tolist():
        rest = np.flatnonzero(groups != group)
        if len(rest):
            for name, value in _differences(first, second, rest).items():
                without[name][group] = value
    return PairedScores(values, without)


def mean_difference(tasks: Sequence[PairedScores]) -> Difference:
    """Return the mean of the differences of several tasks' scores, which may have rows in common.

    The degrees of freedom are Satterthwaite's, of the tasks' variances v_t:
    (sum v_t)^2 / sum (v_t^2 / (groups_t - 1)).
    """
    value = float(np.mean([task.values[""] for task in tasks]))
    by_task = np.array([task.without[""] for task in tasks])
    empty = np.isnan(by_task).all(axis=0)
    filled = np.where(np.isnan(by_task), np.array([[task.values[""]] for task in tasks]), by_task).mean(axis=0)
    count, variance = _variance(np.where(empty, np.nan, filled))
    each = [_variance(task.without[""]) for task in tasks]
    squares = sum(one**2 / max(groups - 1, 1) for groups, one in each)
    freedom = sum(one for _, one in each) ** 2 / squares if squares else min(groups for groups, _ in each) - 1
    # Tasks on the same rows are no further evidence.
    return _interval(value, variance, min(freedom, count - 1))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Return the p values of several comparisons as Holm (1979) corrects them, by name."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for place, name in enumerate(sorted(values, key=lambda name: values[name])):
        largest = max(largest, min(1.0, (len(values) - place) * values[name]))
        corrected[name] = largest
    return {name: corrected[name] for name in values}


def _variance(without: np.ndarray) -> tuple[int, float]:
    """The number of groups that have rows, and the jackknife's variance of the difference."""
    kept = without[~np.isnan(without)]
    if len(kept) < 2:
        return len(kept), 0.0
    return len(kept), (len(kept) - 1) / len(kept) * float(np.square(kept - kept.mean()).sum())


def _interval(value: float, variance: float, freedom: float) -> Difference:
    if freedom < _LEAST_FREEDOM and (variance == 0 or freedom < 1):
        # A few rows that are all alike say nothing of how rows differ.
        return Difference(value, -np.inf, np.inf, 1.0)
    if variance == 0:
        return Difference(value, value, value, float(value == 0))
    far = float(student.ppf((1 + LEVEL) / 2, freedom)) * variance**0.5
    return Difference(value, value - far, value + far, 2 * float(student.sf(abs(value) / variance**0.5, freedom)))


def _differences(first: AnsweredRows, second: AnsweredRows, places: np.ndarray | None) -> dict[str, float]:
    scores, others = first.score(places), second.score(places)
    shared = {name: score for name, score in scores.items() if name in others}
    values = {name: score - others[name] for name, score in shared.items()}
    if any(METRICS[name].higher_is_better for name in shared):
        values[""] = task_score(shared) - task_score({name: others[name] for name in shared})
    return values


def _at(rows: Rows, places: np.ndarray) -> Rows:
    return rows[places] if isinstance(rows, np.ndarray) else [rows[place] for place in places.tolist()]
