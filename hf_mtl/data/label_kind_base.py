"""The base of the kinds of labels: how they are read, checked, learned from, and compared with answers."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset

from ..modeling.task_head import Answer
from ..tasks import TaskSpec
from .label_columns import LabelColumn

# What reads a row's label, given with the row's index; it raises ValueError for what is no label.
LabelReader = Callable[[Any, int], Any]
Fields = Mapping[str, Sequence[Any]]


class LabelKind(ABC):
    """The labels of the tasks whose problem type names this kind."""

    # Whether data sets write -1 where a label is not told.
    hides = True
    # The field of a row of `hf_mtl.baselines.BaselineTask`; None where no baseline learns such labels.
    baseline_field: str | None = "label"

    @abstractmethod
    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        """Return what reads the labels of a split in canonical form.

        Args:
            spec: The task, its label names known.
            column: The labels as the data set has them.
            fields: The rows' input fields.
            keys: The keys of each row's choices, where they have any.

        Raises:
            InputError: A column whose labels cannot be those of the task.
        """

    def vocabulary(self, spec: TaskSpec, column: LabelColumn) -> list[str]:
        """Return the names of labels in training rows, in the order of their ids; none where labels have no names."""
        return []

    def form(self, spec: TaskSpec, column: LabelColumn) -> dict[str, Any]:
        """Return what the labels of training rows say about the form of all labels, as values of the task."""
        return {}

    def check(self, label: Any, fields: Fields, index: int) -> None:
        """Raise ValueError unless a canonical label fits the input fields of its row."""

    def facts(self, spec: TaskSpec, labels: Sequence[Any]) -> dict[str, Any]:
        """Return what all canonical training labels say that the task does not, as values of the task."""
        return {}

    def statistics(self, spec: TaskSpec, labels: Sequence[Any]) -> dict[str, Any]:
        """Return what those of the training rows that are used say likewise."""
        return {}

    def class_weights(self, spec: TaskSpec, labels: Sequence[Any]) -> list[float]:
        """Return the weights under which each of the task's labels carries the same loss."""
        counts = self._counts(spec, labels)
        return (counts.sum() / (spec.num_outputs * counts)).tolist()

    def ids(self, label: Any) -> list[int]:
        """Return the ids of label names that stand in a canonical label."""
        return []

    def constants(self, labels: Sequence[Any]) -> list[Any]:
        """Return what would all be one if the labels said nothing; empty where rows have answers of their own."""
        return list(labels)

    def trainable(self, spec: TaskSpec, labels: Sequence[Any]) -> Sequence[Any]:
        """Return canonical labels as features take them."""
        return labels

    @abstractmethod
    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        """Return the loss of a prediction that knows nothing; of a stream `rows` are None."""

    @abstractmethod
    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[Any]:
        """Return answers as the metrics read them."""

    def references(self, spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> list[Any]:
        """Return canonical labels as the metrics read them.

        Args:
            spec: The task.
            labels: The labels.
            answers: The rows' answers, which say what was asked where that is drawn.
        """
        return list(labels)

    def scored(self, prediction: Any, label: Any) -> Any:
        """Return of a prediction what its label says something about."""
        return prediction

    def scores(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[Any] | None:
        """Return what the model gave class 1 of two, or each label; None where answers have no such scores."""
        return None

    def answer_form(self, spec: TaskSpec, label: Any) -> Any:
        """Return a canonical label in the form of an answer."""
        return label

    def _counts(self, spec: TaskSpec, labels: Sequence[Any]) -> np.ndarray:
        """Return how often each label name stands in the labels (outputs,), at least 1."""
        ids = np.array([index for label in labels for index in self.ids(label) if index >= 0], dtype=int)
        return np.maximum(np.bincount(ids, minlength=spec.num_outputs), 1)
