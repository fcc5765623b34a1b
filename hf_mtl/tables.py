"""The tables that a run prints: the mixture before it, the scores after it."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from .baselines import BaselineTask, tfidf_scores, trivial_scores
from .data.label_kinds import label_kind
from .data.mixing import TaskShare
from .data.mixture import Mixture
from .metrics import METRICS, task_score
from .modeling.tag_spans import spelled_as_bioes
from .tasks import LABEL_FIELD, TaskSpec
from .training.scoring import mtl_average

Scores = Mapping[str, Mapping[str, float]]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return aligned lines, the first column to the left and the others to the right."""
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        )
        for row in ruled
    ]


def mixture_table(shares: Sequence[TaskShare]) -> list[str]:
    """Return the mixture: rows, share of the draws, draws and passes of every task."""
    rows = [
        [share.task, f"{share.rows:,}", f"{100 * share.share:.1f} %", f"{share.draws:,}", f"{share.passes:.2f}"]
        for share in shares
    ]
    return table(["task", "train rows", "share", "draws", "passes"], rows)


def dropped_lines(mixture: Mixture) -> list[str]:
    """Say how many training rows stood in a held-out split, and of which tasks."""
    dropped = {name: count for name, count in mixture.dropped.items() if count}
    if not dropped:
        return ["No training row stands in a held-out split."] if mixture.dropped else []
    parts = ", ".join(f"{name} {count}" for name, count in dropped.items())
    return [f"Dropped {sum(dropped.values())} training rows whose input stands in a held-out split: {parts}."]


def score_table(scores: Scores, baselines: Mapping[str, tuple[Mapping, Mapping]]) -> list[str]:
    """Return one line per task and metric: the score, the trivial predictor's and TF-IDF + linear's, 0-100.

    Args:
        scores: Metrics by task.
        baselines: (trivial, TF-IDF + linear) metrics by task; may be empty.
    """
    rows = []
    for name, task_scores in scores.items():
        trivial, tfidf = baselines.get(name, ({}, {}))
        rows += [
            [name, metric, *_cells(value, trivial.get(metric), tfidf.get(metric))]
            for metric, value in task_scores.items()
        ]
    columns = [[baselines[name][which] for name in scores if name in baselines] for which in (0, 1)]
    means = [sum(map(task_score, column)) / len(column) if column else None for column in columns]
    rows.append(["mean over tasks", "", *_cells(mtl_average(scores), *means)])
    keep = 5 if baselines else 3
    return table(["task", "metric", "score", "trivial", "TF-IDF + linear"][:keep], [row[:keep] for row in rows])


def change_table(before: Scores, after: Scores) -> list[str]:
    """Return one line per task and metric of `after`, with what it was before where that is known."""
    rows = []
    for name, task_scores in after.items():
        earlier = before.get(name, {})
        rows += [[name, metric, *_cells(earlier.get(metric), value)] for metric, value in task_scores.items()]
    shared = {name: task_scores for name, task_scores in before.items() if name in after}
    rows.append(["mean over tasks", "", *_cells(mtl_average(shared) if shared else None, mtl_average(after))])
    return table(["task", "metric", "before", "after"], rows)


def _cells(*values: float | None) -> list[str]:
    return ["-" if value is None else f"{value:.1f}" for value in values]


def baseline_scores(mixture: Mixture) -> dict[str, tuple[dict[str, float], dict[str, float]]]:
    """Return what the trivial predictor and TF-IDF + linear get on each task's validation rows."""
    baselines = {}
    for spec in mixture.specs:
        scored = spec.name in mixture.validation and label_kind(spec).baseline_field is not None
        if scored and not all(METRICS[name].reads_scores for name in spec.metric_names):
            task = _baseline_task(spec, mixture.train[spec.name], mixture.validation[spec.name])
            baselines[spec.name] = (trivial_scores(task), tfidf_scores(task))
    return baselines


def _baseline_task(spec: TaskSpec, train: Dataset, validation: Dataset) -> BaselineTask:
    return BaselineTask(
        name=spec.name,
        problem_type=spec.problem_type,
        labels=spelled_as_bioes(spec.labels) if spec.problem.labels == "tags" and spec.labels else spec.labels,
        metrics=tuple(metric for metric in spec.metric_names if not METRICS[metric].reads_scores),
        train=_baseline_rows(spec, train),
        validation=_baseline_rows(spec, validation),
    )


def _baseline_rows(spec: TaskSpec, rows: Dataset) -> list[dict[str, Any]]:
    name = label_kind(spec).baseline_field or LABEL_FIELD
    return [{**{key: row[key] for key in spec.input_fields}, name: row[LABEL_FIELD]} for row in rows]
