"""One class per kind of labels: how they are read from a data set, checked, learned from, and compared with answers.

A problem type names its kind of labels (`hf_mtl.modeling.problem_types`). To add a kind, write its class and its line
in `LABEL_KINDS`.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..modeling.tag_spans import spelled_as_bioes
from ..modeling.task_head import Answer
from ..tasks import TaskSpec
from .class_labels import (
    ClassReader,
    class_vocabulary,
    label_set_reader,
    label_set_vocabulary,
    tag_reader,
    tag_vocabulary,
)
from .label_columns import NO_LABEL, LabelColumn
from .label_form import form_of_numbers
from .label_kind_base import Fields, LabelKind, LabelReader
from .label_values import choice_reader, number_reader, read_answers
from .masked_pieces import PieceLabels

# Choices of a row whose number is unknown, because rows are streamed.
_CHOICES = 4
_MEASURED_ROWS = 1000


class ClassLabels(LabelKind):
    """The id of one class of several."""

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        read = ClassReader(spec, column)
        return lambda label, index: read(label)

    def vocabulary(self, spec: TaskSpec, column: LabelColumn) -> list[str]:
        return class_vocabulary(spec, column)

    def ids(self, label: int) -> list[int]:
        return [label]

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        return math.log(max(spec.num_outputs, 2))

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[int]:
        return [spec.label_names.index(answer["label"]) for answer in answers]

    def scores(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[Any]:
        if spec.num_outputs == 2:
            return [answer["scores"][spec.label_names[1]] for answer in answers]
        return _scores_of_labels(spec, answers)

    def answer_form(self, spec: TaskSpec, label: int) -> str:
        return spec.label_names[label]


class LabelSets(LabelKind):
    """The ids of the labels that hold."""

    baseline_field = "labels"

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        read = label_set_reader(spec, column)
        return lambda label, index: read(label)

    def vocabulary(self, spec: TaskSpec, column: LabelColumn) -> list[str]:
        return label_set_vocabulary(spec, column)

    def form(self, spec: TaskSpec, column: LabelColumn) -> dict[str, Any]:
        return {} if spec.label_form is not None else {"label_form": form_of_numbers(spec, column)}

    def class_weights(self, spec: TaskSpec, labels: Sequence[Any]) -> list[float]:
        # Of the rows where a label holds: negatives / positives.
        counts = self._counts(spec, labels)
        return ((len(labels) - counts).clip(min=1) / counts).tolist()

    def ids(self, label: Sequence[int]) -> list[int]:
        return list(label)

    def trainable(self, spec: TaskSpec, labels: Sequence[Any]) -> Sequence[Any]:
        return [[float(index in label) for index in range(spec.num_outputs)] for label in labels]

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        return math.log(2)

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[list[int]]:
        return [[int(label in answer["labels"]) for label in spec.label_names] for answer in answers]

    def references(self, spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> list[list[int]]:
        return [[int(index in label) for index in range(spec.num_outputs)] for label in labels]

    def scores(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[Any]:
        return _scores_of_labels(spec, answers)

    def answer_form(self, spec: TaskSpec, label: Sequence[int]) -> list[str]:
        return [spec.label_names[index] for index in sorted(label)]


class NumberLabels(LabelKind):
    """A number."""

    hides = False

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        read = number_reader(column)
        return lambda label, index: read(label)

    def statistics(self, spec: TaskSpec, labels: Sequence[float]) -> dict[str, Any]:
        if spec.label_scale is not None or spec.label_mean is not None:
            return {}
        return {"label_mean": statistics.fmean(labels), "label_scale": statistics.pstdev(labels) or 1.0}

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        # The variance of standardised labels.
        return 1.0

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[float]:
        return [answer["value"] for answer in answers]


class Tags(LabelKind):
    """The id of a tag for each word; `NO_LABEL` for a word without one."""

    baseline_field = "tags"

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        read = tag_reader(spec, column, NO_LABEL)
        return lambda label, index: read(label)

    def vocabulary(self, spec: TaskSpec, column: LabelColumn) -> list[str]:
        return tag_vocabulary(spec, column)

    def check(self, label: Sequence[int], fields: Fields, index: int) -> None:
        if len(label) != len(fields["tokens"][index]):
            raise ValueError(f"{len(label)} tags for {len(fields['tokens'][index])} tokens; expected one each")

    def ids(self, label: Sequence[int]) -> list[int]:
        return list(label)

    def constants(self, labels: Sequence[Any]) -> list[Any]:
        return [tag for label in labels for tag in label]

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        return math.log(max(spec.num_outputs, 2))

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[list[str]]:
        spelled = dict(zip(spec.label_names, spelled_as_bioes(spec.label_names)))
        return [[spelled[tag] for tag in answer["tags"]] for answer in answers]

    def references(self, spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> list[list[str]]:
        spelled = spelled_as_bioes(spec.label_names)
        return [[spelled[tag] for tag in label if tag >= 0] for label in labels]

    def scored(self, prediction: Sequence[str], label: Sequence[int]) -> list[str]:
        return [tag for tag, true in zip(prediction, label) if true >= 0]

    def answer_form(self, spec: TaskSpec, label: Sequence[int]) -> list[str | None]:
        return [spec.label_names[tag] if tag >= 0 else None for tag in label]


class Answers(LabelKind):
    """The texts that answer a question and where they begin in the context; none where it has no answer."""

    hides = False
    baseline_field = "answers"

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        return lambda label, index: read_answers(label)

    def check(self, label: Mapping[str, Any], fields: Fields, index: int) -> None:
        for text, start in zip(label["text"], label["answer_start"]):
            if fields["context"][index][start : start + len(text)] != text:
                raise ValueError(f"the answer {text!r} does not stand at character {start} of its context")

    def facts(self, spec: TaskSpec, labels: Sequence[Any]) -> dict[str, Any]:
        return {} if spec.null_answer is not None else {"null_answer": any(not label["text"] for label in labels)}

    def constants(self, labels: Sequence[Any]) -> list[Any]:
        return []

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        return math.log(spec.setting("max_length"))

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[str]:
        return [answer["answer"] for answer in answers]

    def references(self, spec: TaskSpec, labels: Sequence[Any], answers: Sequence[Answer]) -> list[list[str]]:
        return [label["text"] for label in labels]

    def answer_form(self, spec: TaskSpec, label: Mapping[str, Any]) -> list[str]:
        return label["text"]


class ChoiceLabels(LabelKind):
    """The place of the right one among a row's choices."""

    def reader(
        self, spec: TaskSpec, column: LabelColumn, fields: Fields, keys: Sequence[Any] | None = None
    ) -> LabelReader:
        return choice_reader(spec, column, fields["choices"], keys)

    def check(self, label: int, fields: Fields, index: int) -> None:
        count = len(fields["choices"][index])
        if label >= count:
            raise ValueError(f"the right choice is {label}; there are {count} choices, counted from 0")

    def constants(self, labels: Sequence[Any]) -> list[Any]:
        return []

    def chance_loss(self, spec: TaskSpec, rows: Dataset | None = None) -> float:
        counts = [len(choices) for choices in rows["choices"][:_MEASURED_ROWS]] if rows is not None else [_CHOICES]
        return sum(map(math.log, counts)) / len(counts)

    def predictions(self, spec: TaskSpec, answers: Sequence[Answer]) -> list[int]:
        return [answer["choice"] for answer in answers]


def _scores_of_labels(spec: TaskSpec, answers: Sequence[Answer]) -> list[list[float]]:
    return [[answer["scores"][label] for label in spec.label_names] for answer in answers]


LABEL_KINDS: dict[str, LabelKind] = {
    "class": ClassLabels(),
    "label_set": LabelSets(),
    "number": NumberLabels(),
    "tags": Tags(),
    "answers": Answers(),
    "choice": ChoiceLabels(),
    "pieces": PieceLabels(),
}


def label_kind(spec: TaskSpec) -> LabelKind:
    """Return the kind of a task's labels."""
    return LABEL_KINDS[spec.problem.labels]


__all__ = ["LABEL_KINDS", "LabelKind", "label_kind"]
