"""The difference of two systems where both seeds and test rows are drawn, and several differences together."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import t as student

from hf_mtl.metrics import compute, task_score

LEVEL = 0.95


class Difference(NamedTuple):
    """A mean difference of scores.

    Args:
        mean: Over seeds of the mean over tasks.
        low: Where the interval begins; NaN with one seed.
        high: Where it ends.
        p: Of a difference of 0, two-sided.
    """

    mean: float
    low: float
    high: float
    p: float


def score(metrics: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]) -> float:
    """Return a task's score, the mean of its metrics."""
    return task_score(compute(metrics, predictions, references))


def pseudovalues(metrics: Sequence[str], predictions: Sequence[Any], references: Sequence[Any]) -> np.ndarray:
    """Return what each row adds to a score, (rows,): R s - (R - 1) s_without_the_row.

    Of a mean over rows (accuracy) that is the row's own value; of any other metric it is the jackknife's.
    """
    rows = len(references)
    predicted, true = np.asarray(predictions), np.asarray(references)
    without = [score(metrics, np.delete(predicted, row), np.delete(true, row)) for row in range(rows)]
    return rows * score(metrics, predicted, true) - (rows - 1) * np.array(without)


def difference(scores: np.ndarray, others: np.ndarray, values: Sequence[np.ndarray]) -> Difference:
    """Return the difference of a system to another with an interval for new seeds and new rows alike.

    Seeds s and test rows r are crossed: all seeds answer the same rows. With D_s the mean over tasks of a seed's
    differences and d_sr a row's (its pseudovalues'), the variance of the mean over S seeds is

        V_seed + V_row,  V_seed = var_s(D_s) / S,
        V_row = 1 / T^2 sum_t (MS_row - MS_rest) / (S R_t), at least 0,

    of two-way analyses of variance of each task's d_sr. The interval is Student's with (S - 1) ((V_seed + V_row) /
    V_seed)^2 degrees of freedom (Dorfman, Berbaum and Metz 1992; Hillis 2007).

    Args:
        scores: (seeds, tasks) of the system.
        others: (seeds, tasks) of the other one, with the same seeds.
        values: By task, (seeds, rows): the differences of the rows' pseudovalues.
    """
    by_seed = (scores - others).mean(axis=1)
    seeds, mean = len(by_seed), float(by_seed.mean())
    if seeds < 2:
        return Difference(mean, math.nan, math.nan, math.nan)
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    of_rows = max(0.0, sum(row_variance(one) for one in values) / len(values) ** 2)
    total = of_seeds + of_rows
    if total == 0:
        return Difference(mean, mean, mean, float(mean == 0))
    freedom = (seeds - 1) * (total / of_seeds) ** 2 if of_seeds else math.inf
    far = float(student.ppf((1 + LEVEL) / 2, freedom)) * total**0.5
    return Difference(mean, mean - far, mean + far, 2 * float(student.sf(abs(mean) / total**0.5, freedom)))


def row_variance(values: np.ndarray) -> float:
    """Return how much the mean of (seeds, rows) varies with the rows that are drawn; less than 0 by chance."""
    seeds, rows = values.shape
    of_rows, of_seeds = values.mean(axis=0), values.mean(axis=1, keepdims=True)
    rest = values - of_rows - of_seeds + values.mean()
    row_square = seeds * float(of_rows.var(ddof=1))
    rest_square = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    return (row_square - rest_square) / (seeds * rows)
