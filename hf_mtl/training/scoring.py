"""Entries' logits become decoded answers, answers become scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from ..data.label_kinds import label_kind
from ..metrics import METRICS, task_score
from ..modeling.errors import InputError
from ..modeling.media_features import Feature
from ..modeling.problem_heads import TASK_HEADS
from ..modeling.processing_multitask import answer_row
from ..modeling.task_head import Answer
from ..paired_intervals import AnsweredRows
from ..tasks import LABEL_FIELD, TaskSpec

AVERAGE, WORST, RELATIVE = "mtl_average", "mtl_worst", "mtl_relative"


@dataclass
class AnswerCollector:
    """Gathers the logits of every row of every task, then decodes and scores them.

    Args:
        specs: The tasks by name.
        rows: Canonical rows by task name.
        tokenizer: The encoder's, which names word pieces.
    """

    specs: Mapping[str, TaskSpec]
    rows: Mapping[str, Dataset]
    tokenizer: PreTrainedTokenizerBase | None = None
    logits: dict[str, dict[int, list[tuple[Feature, np.ndarray]]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, entries: Sequence[tuple[str, Feature]], logits: Sequence[np.ndarray]) -> None:
        """Take a batch: task and feature of each entry, and its logits."""
        for (name, feature), scores in zip(entries, logits, strict=True):
            self.logits[name].setdefault(feature["source"], []).append((feature, scores))

    def answers(self) -> dict[str, list[Answer]]:
        """Return the decoded answers of every task, in the order of its rows."""
        return {
            name: [self._answer(name, source) for source in sorted(sources)] for name, sources in self.logits.items()
        }

    def _answer(self, name: str, source: int) -> Answer:
        spec = self.specs[name]
        features, scores = zip(*self.logits[name][source])
        row = answer_row(spec, self.rows[name][source])
        return TASK_HEADS[spec.problem_type].answer(spec, scores, row, features, self.tokenizer)


def score_answers(
    specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, dict[str, float]]:
    """Return the metrics (0-100) of every task that was answered and has labels."""
    return {name: answered.score() for name, answered in answered_rows(specs, rows, answers).items()}


def answered_rows(
    specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, AnsweredRows]:
    """Return the rows of every task that was answered and has labels, as the metrics read them."""
    return {
        name: _answered(specs[name], rows[name][LABEL_FIELD][:], answers[name])
        for name in answers
        if LABEL_FIELD in rows[name].column_names
    }


def _answered(spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> AnsweredRows:
    kind = label_kind(spec)
    predictions = list(map(kind.scored, kind.predictions(spec, answers), labels))
    return AnsweredRows(
        spec.metric_names, predictions, kind.references(spec, labels, answers), kind.scores(spec, answers)
    )


def scores_of_tasks(
    metrics: Mapping[str, float], tasks: Sequence[str], prefix: str = "eval"
) -> tuple[dict[str, dict[str, float]], dict[str, float], dict[str, float]]:
    """Return, of an evaluation's flat metrics, each task's scores, each task's loss, and what is left.

    Args:
        metrics: What `MultiTaskTrainer.evaluate` returned, or an entry of a run's history.
        tasks: The tasks' names.
        prefix: What the keys begin with; others are left out.
    """
    left = {key.removeprefix(f"{prefix}_"): value for key, value in metrics.items() if key.startswith(f"{prefix}_")}
    scores: dict[str, dict[str, float]] = {task: {} for task in tasks}
    losses = {}
    # The longer name first: `mood_accuracy` may be a task's name.
    for task in sorted(tasks, key=len, reverse=True):
        for key in [key for key in left if key.startswith(f"{task}_")]:
            name = key.removeprefix(f"{task}_")
            if name in METRICS:
                scores[task][name] = left.pop(key)
            elif name == "loss":
                losses[task] = left.pop(key)
    return {task: by_metric for task, by_metric in scores.items() if by_metric}, losses, left


def flat_scores(
    scores: Mapping[str, Mapping[str, float]], single_task: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Return ``<task>_<metric>`` for every task, the mean and the least of their scores, and, where single-task
    scores are given, the mean relative improvement over them.
    """
    flat = {f"{task}_{metric}": value for task, task_scores in scores.items() for metric, value in task_scores.items()}
    if not scores:
        return flat
    flat[AVERAGE] = mtl_average(scores)
    flat[WORST] = min(map(task_score, scores.values()))
    if single_task and any(task in single_task for task in scores):
        flat[RELATIVE] = _relative_improvement(scores, single_task)
    return flat


def _relative_improvement(scores: Mapping[str, Mapping[str, float]], single_task: Mapping[str, Any]) -> float:
    """Return the mean relative improvement over single-task models, in per cent.

    100 / T sum_t mean_m (-1)^l_m (M_tm - B_tm) / |B_tm| (Maninis et al. 2019, section 4), l_m = 1 where lower is
    better; tasks without single-task scores are left out.

    Args:
        scores: Metrics by task.
        single_task: By task its metrics, or one number to compare the task's score with.

    Raises:
        InputError: A single-task score is 0, or of a metric that the task lacks.
    """
    changes = []
    for task, task_scores in scores.items():
        if task in single_task:
            given = single_task[task]
            pairs = (
                [(task_scores.get(metric), value, _sign(metric)) for metric, value in given.items()]
                if isinstance(given, Mapping)
                else [(task_score(task_scores), given, 1.0)]
            )
            if any(score is None or not value for score, value, _ in pairs):
                raise InputError(
                    f"single_task_scores of {task!r} are {given!r}; expected numbers other than 0 for some of "
                    f"{', '.join(task_scores)}."
                )
            changes.append(np.mean([sign * (score - value) / abs(value) for score, value, sign in pairs]))
    return 100 * float(np.mean(changes))


def _sign(metric: str) -> float:
    return 1.0 if METRICS[metric].higher_is_better else -1.0


def source_scores(
    scores: Mapping[str, Mapping[str, float]], tasks_of: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    """Return each source's score, the mean of its tasks'; a source with a task that has none is left out."""
    return {
        source: float(np.mean([task_score(scores[name]) for name in names]))
        for source, names in tasks_of.items()
        if all(name in scores for name in names)
    }


def mtl_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over tasks of each task's score, itself the mean of its metrics."""
    return float(np.mean([task_score(task_scores) for task_scores in scores.values()]))


def decoded_labels(specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset]) -> dict[str, list[Any]] | None:
    """Return the labels of every task that has them in the form of its answers, or None where no task has.

    Names of classes, lists of names of flags, numbers, lists of tags (None for a word without one), the texts of an
    answer, the number of a choice.
    """
    labels = {
        name: [label_kind(specs[name]).answer_form(specs[name], label) for label in data[LABEL_FIELD]]
        for name, data in rows.items()
        if LABEL_FIELD in data.column_names
    }
    return labels or None


def merged_metrics(scores: Mapping[str, float], given: Any, prefix: str) -> dict[str, Any]:
    """Return scores together with those that a caller's function computed.

    Raises:
        InputError: The function returned no scores by name, or one under a name that stands for another score.
    """
    if not isinstance(given, Mapping):
        raise InputError(f"compute_metrics returned {given!r}; expected scores by name, such as {{'accuracy': 0.9}}.")
    named = {
        name if str(name).startswith(f"{prefix}_") else f"{prefix}_{name}": value for name, value in given.items()
    }
    for name in named:
        if name in scores:
            raise InputError(
                f"compute_metrics returned {name.removeprefix(f'{prefix}_')!r}, which is a score of a task's own "
                "metrics; choose another name."
            )
    return {**scores, **named}
