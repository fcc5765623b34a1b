"""Flags of multi-label tasks that no validation row gets, and a threshold at which the task would score better."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..metrics import METRICS, task_score
from ..paired_intervals import AnsweredRows
from ..tasks import TaskSpec

if TYPE_CHECKING:
    from ..training.trainer import MultiTaskTrainer

# Flags that a line names.
_NAMED = 8
_THRESHOLDS = np.round(np.arange(0.02, 0.96, 0.02), 2)
# Points by which another threshold must score better to be worth a word.
_LEAST_GAIN = 0.1


def unset_flag_lines(trainer: "MultiTaskTrainer", answered: Mapping[str, AnsweredRows]) -> list[str]:
    """Return a line per multi-label task with flags that hold in some validation row and are set in none.

    Args:
        trainer: Has answered its validation rows.
        answered: By task, the answers.
    """
    lines = []
    for name, rows in answered.items():
        spec = trainer.specs[name]
        if spec.problem.labels == "label_set" and rows.scores is not None:
            lines += _lines_of_task(spec, rows)
    return lines


def _lines_of_task(spec: TaskSpec, rows: AnsweredRows) -> list[str]:
    scores, true = np.asarray(rows.scores, dtype=float), np.asarray(rows.references)
    threshold, has_any = spec.setting("threshold"), true.max(axis=0) > 0
    unset = [
        label
        for label, highest, holds in zip(spec.label_names, scores.max(axis=0), has_any)
        if holds and highest < threshold
    ]
    if not unset:
        return []
    line = f"{spec.name}: threshold {threshold:g} sets no flag in any of {len(true):,} validation rows"
    if len(unset) < has_any.sum():
        more = f" and {len(unset) - _NAMED} more" if len(unset) > _NAMED else ""
        flags = f"{', '.join(unset[:_NAMED])}{more}"
        line = f"{spec.name}: in {len(true):,} validation rows threshold {threshold:g} never sets {flags}"
    before = _score_at(rows, scores, threshold)
    best = max(_THRESHOLDS, key=lambda one: _score_at(rows, scores, one))
    gain = _score_at(rows, scores, best) - before
    if gain < _LEAST_GAIN:
        return [f"{line}. No other threshold scores better on them."]
    return [
        f"{line}. With threshold: {best:g} they would score {before + gain:.1f} instead of {before:.1f} (chosen on "
        f"these rows, so too good): hf-mtl evaluate ... --tasks.{spec.name}.threshold {best:g}"
    ]


def _score_at(rows: AnsweredRows, scores: np.ndarray, threshold: float) -> float:
    metrics = [name for name in rows.metrics if not METRICS[name].reads_scores]
    if not metrics:
        return 0.0
    answered = AnsweredRows(metrics, (scores >= threshold).astype(int), rows.references)
    return task_score(answered.score())
