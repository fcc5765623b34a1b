"""Flags of multi-label tasks that no validation row gets, and a threshold at which the task would score better."""

import shlex
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


def flag_lines(trainer: "MultiTaskTrainer", answered: Mapping[str, AnsweredRows], checkpoint: str) -> list[str]:
    """Return a line per multi-label task with flags that hold in some validation row and are set in none, or that
    answers all rows alike.

    Args:
        trainer: Has answered its validation rows.
        answered: By task, the answers.
        checkpoint: Its folder, for the command to type.
    """
    lines = []
    for name, rows in answered.items():
        spec = trainer.specs[name]
        if spec.problem.labels == "label_set" and rows.scores is not None:
            lines += _lines_of_task(spec, rows, checkpoint)
    return lines


def _lines_of_task(spec: TaskSpec, rows: AnsweredRows, checkpoint: str) -> list[str]:
    scores, true = np.asarray(rows.scores, dtype=float), np.asarray(rows.references)
    threshold, has_any, is_set = spec.setting("threshold"), true.max(axis=0) > 0, np.asarray(rows.predictions) > 0
    unset = [label for label, ever, holds in zip(spec.label_names, is_set.max(axis=0), has_any) if holds and not ever]
    if not unset and not (len(true) > 1 and (is_set == is_set[0]).all()):
        return []
    count = f"{len(true):,} validation rows"
    if not is_set.any():
        line = f"{spec.name}: threshold {threshold:g} sets no flag in any of {count}"
    elif len(true) > 1 and (is_set == is_set[0]).all():
        line = f"{spec.name}: threshold {threshold:g} sets the same {is_set[0].sum()} flags in each of {count}"
    else:
        more = f" and {len(unset) - _NAMED} more" if len(unset) > _NAMED else ""
        line = f"{spec.name}: in {count} threshold {threshold:g} never sets {', '.join(unset[:_NAMED])}{more}"
    return [line + _advice(spec, rows, scores, checkpoint)]


def _advice(spec: TaskSpec, rows: AnsweredRows, scores: np.ndarray, checkpoint: str) -> str:
    """A threshold that scores better than this one and than setting every flag, where there is one."""
    if all(METRICS[name].reads_scores for name in rows.metrics):
        return "."
    before, every = _score_at(rows, scores, spec.setting("threshold")), _score_at(rows, scores, -1.0)
    best = max(_THRESHOLDS, key=lambda one: _score_at(rows, scores, one))
    score = _score_at(rows, scores, best)
    if score < max(before, every) + _LEAST_GAIN:
        return f" (score {before:.1f}; every flag in every row: {every:.1f}). No other threshold beats both."
    return (
        f". With threshold: {best:g} they would score {score:.1f} instead of {before:.1f} (chosen on these rows, so "
        f"too good; every flag in every row: {every:.1f}): "
        f"hf-mtl evaluate {shlex.quote(checkpoint)} --tasks.{spec.name}.threshold {best:g}"
    )


def _score_at(rows: AnsweredRows, scores: np.ndarray, threshold: float) -> float:
    metrics = [name for name in rows.metrics if not METRICS[name].reads_scores]
    answered = AnsweredRows(metrics, (scores >= threshold).astype(int), rows.references)
    return task_score(answered.score())
