"""Entries' logits become decoded answers, answers become scores."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset

from ..metrics import compute, task_score
from ..modeling.pipeline_multitask import answer_row
from ..modeling.processing_multitask import Feature
from ..modeling.task_heads import TASK_HEADS, Answer
from ..tasks import LABEL_FIELD, TaskSpec

AVERAGE = "mtl_average"


@dataclass
class AnswerCollector:
    """Gathers the logits of every row of every task, then decodes and scores them.

    Args:
        specs: The tasks by name.
        rows: Canonical rows by task name.
    """

    specs: Mapping[str, TaskSpec]
    rows: Mapping[str, Dataset]
    logits: dict[str, dict[int, list[tuple[Feature, np.ndarray]]]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, features: Sequence[Feature], logits: Sequence[np.ndarray]) -> None:
        """Take a batch: each feature's only entry and its logits."""
        for feature, scores in zip(features, logits, strict=True):
            self.logits[feature["task"]].setdefault(feature["source"], []).append((feature, scores))

    def answers(self) -> dict[str, list[Answer]]:
        """Return the decoded answers of every task, in the order of its rows."""
        return {name: [self._answer(name, source) for source in sorted(found)] for name, found in self.logits.items()}

    def _answer(self, name: str, source: int) -> Answer:
        spec = self.specs[name]
        features, scores = zip(*self.logits[name][source])
        row = answer_row(spec, self.rows[name][source])
        return TASK_HEADS[spec.problem_type].decode(spec, scores, row, features)


def score_answers(
    specs: Mapping[str, TaskSpec], rows: Mapping[str, Dataset], answers: Mapping[str, Sequence[Answer]]
) -> dict[str, dict[str, float]]:
    """Return the metrics (0-100) of every task that was answered."""
    return {
        name: compute(
            specs[name].metric_names,
            [prediction(specs[name], answer) for answer in found],
            references(specs[name], rows[name][LABEL_FIELD][:]),
        )
        for name, found in answers.items()
    }


def flat_scores(scores: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return ``<task>_<metric>`` for every task, and the mean over tasks of their scores."""
    flat = {f"{task}_{metric}": value for task, own in scores.items() for metric, value in own.items()}
    return {**flat, AVERAGE: mtl_average(scores)}


def mtl_average(scores: Mapping[str, Mapping[str, float]]) -> float:
    """Return the mean over tasks of each task's score, itself the mean of its metrics."""
    return float(np.mean([task_score(own) for own in scores.values()]))


def prediction(spec: TaskSpec, answer: Answer) -> Any:
    """Return an answer in the form the metrics read."""
    if spec.problem_type == "single_label_classification":
        return spec.label_names.index(answer["label"])
    if spec.problem_type == "multi_label_classification":
        return [int(label in answer["labels"]) for label in spec.label_names]
    key = {
        "regression": "value",
        "token_classification": "tags",
        "question_answering": "answer",
        "multiple_choice": "choice",
    }
    return answer[key[spec.problem_type]]


def references(spec: TaskSpec, labels: Sequence[Any]) -> list[Any]:
    """Return a split's labels in the form the metrics read."""
    if spec.problem_type == "multi_label_classification":
        return [[int(index in label) for index in range(spec.num_outputs)] for label in labels]
    if spec.problem_type == "token_classification":
        return [[spec.label_names[tag] for tag in label] for label in labels]
    if spec.problem_type == "question_answering":
        return [label["text"] for label in labels]
    return list(labels)
