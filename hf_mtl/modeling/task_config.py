"""A task as a checkpoint stores it: its name, labels and settings, which nothing writes to."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from .errors import InputError, check_choice, check_types, nearest
from .problem_types import PROBLEM_TYPES, ProblemType, problem_type_with
from .task_tensors import task_slug

_LONGEST_NAME = 100

# "mtl" names the mean over tasks (eval_mtl_average) and "loss" the total (eval_loss).
_RESERVED_TASK_NAMES = ("mtl", "loss")

# Of messages that say what to write.
EXAMPLE_TASK = {"name": "mood", "problem_type": problem_type_with("class"), "labels": ["bad", "good"]}

# Settings of a task by their defaults; that of `max_length` is the problem type's. What is measured in training rows
# (label statistics, class weights, whether there may be no answer) has none.
_SETTINGS: dict[str, Any] = {
    "stride": 64,
    "threshold": 0.5,
    "max_answer_length": 30,
    "num_best": 3,
    "mlm_probability": 0.15,
}

# What settings of a task that are sizes must be at least.
_LEAST_OF_TASK = {"max_length": 1, "stride": 0, "max_answer_length": 1, "num_best": 1}


def _check_problem_type(name: str, problem_type: Any) -> None:
    try:
        check_choice(f"problem type of task {name!r}:", problem_type, PROBLEM_TYPES)
    except InputError as error:
        raise InputError(
            f"{error} One that another package adds is known once that package is imported; on the command line, "
            "--import PACKAGE."
        ) from None


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """One task as a checkpoint stores it; what is None is not given.

    Args:
        name: The task's name, as in ``"SST-2"``; keys logits, answers and metrics. Parameters have its `task_slug`.
        problem_type: A name of `PROBLEM_TYPES`.
        labels: Class, flag or tag names in id order; None for regression, question answering and multiple choice.
        fields: Input fields read from a row; by default those the problem type needs, in a model of images alone the
            image, likewise of sounds and tables.
        table_columns: The columns of the row of a table, where a task reads one (`fields` has "table").
        max_length: Longest input in word pieces, special ones included; longer ones are cut (question answering:
            split into windows). By default 128, of question answering 384.
        stride: Word pieces two neighbouring windows of a context share (question answering); by default 64.
        reads: Names of the tasks this one may attend to; None for all that are trained together.
        threshold: Probability from which a flag is set (multi-label); by default 0.5.
        class_weights: Weight of each label's loss (multi-label: of its positive rows), in label order; by default 1.
        label_mean: Regression labels are trained as (label - label_mean) / label_scale and decoded back; by default
            measured in the training rows, as `label_scale` is.
        label_scale: See `label_mean`.
        max_answer_length: Longest answer in word pieces (question answering); by default 30.
        num_best: How many answers `predict` lists (question answering, masked language modelling); by default 3.
        null_answer: Whether "no answer" is an answer (question answering); by default whether training rows have none.
        mlm_probability: Share of a row's word pieces that are masked, one at least (masked language modelling); by
            default 0.15.
    """

    # Fields that no mapping gives.
    FILLED_IN: ClassVar[tuple[str, ...]] = ()

    name: str
    problem_type: str
    labels: list[str] | None = None
    fields: list[str] | None = None
    table_columns: list[str] | None = None
    max_length: int | None = None
    stride: int | None = None
    reads: list[str] | None = None
    threshold: float | None = None
    class_weights: list[float] | None = None
    label_mean: float | None = None
    label_scale: float | None = None
    max_answer_length: int | None = None
    num_best: int | None = None
    null_answer: bool | None = None
    mlm_probability: float | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The values that are given, by key."""
        values = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return {name: value for name, value in values.items() if value is not None}

    def setting(self, name: str) -> Any:
        """Return a value, its default where the task does not give it; None where there is none."""
        value = getattr(self, name)
        if value is not None:
            return value
        return self.problem.max_length if name == "max_length" else _SETTINGS.get(name)

    def to_config(self) -> "TaskConfig":
        """Return the part of a task that a checkpoint keeps."""
        return TaskConfig(**{item.name: getattr(self, item.name) for item in dataclasses.fields(TaskConfig)})

    def with_settings(self) -> Self:
        """Return the task with its settings' defaults in the place of what is not given."""
        return dataclasses.replace(self, **{name: self.setting(name) for name in ("max_length", *_SETTINGS)})

    @classmethod
    def row_keys(cls) -> list[str]:
        """Return what a mapping may give of a task."""
        return [item.name for item in dataclasses.fields(cls) if item.name not in cls.FILLED_IN]

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Self:
        """Build a task from a mapping; an unknown key raises `InputError` naming the nearest known one."""
        keys = cls.row_keys()
        for key in row:
            if key not in keys:
                raise InputError(
                    f"Unknown key {key!r} in task {row.get('name', '?')!r}.{nearest(key, keys)} "
                    f"Known keys: {', '.join(keys)}."
                )
        for key in ("name", "problem_type"):
            if key not in row:
                raise InputError(f"A task needs {key!r}; found {dict(row)!r}.")
        return cls(**row)

    def to_dict(self) -> dict[str, Any]:
        """Return the task as JSON-ready values."""
        return dataclasses.asdict(self)

    @property
    def problem(self) -> ProblemType:
        """The row of its problem type: what is true of all tasks of it."""
        if self.problem_type not in PROBLEM_TYPES:
            _check_problem_type(self.name, self.problem_type)
        return PROBLEM_TYPES[self.problem_type]

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The fields a row must have for this task."""
        return tuple(self.fields) if self.fields else self.problem.fields

    @property
    def label_names(self) -> list[str]:
        """The names of the labels in id order; none where the problem type has none."""
        return self.labels or []

    @property
    def num_outputs(self) -> int:
        """Scores per row (or per token, or per choice): classes, flags, tags; 2 for span ends; else 1."""
        return len(self.label_names) if self.problem.num_outputs is None else self.problem.num_outputs

    def check_name_and_type(self) -> None:
        """Raise `InputError` for an invalid name, problem type, field, or value of the wrong type."""
        name: Any = self.name
        is_name = isinstance(name, str) and name == name.strip() and name.isprintable() and len(name) <= _LONGEST_NAME
        if not is_name or not task_slug(name).strip("_"):
            raise InputError(
                f"Invalid task name {name!r}; expected a text of at most {_LONGEST_NAME} characters on one line, with "
                "a letter or digit and no space around it, e.g. 'SST-2'."
            )
        if task_slug(name) in _RESERVED_TASK_NAMES:
            raise InputError(f"The task name {self.name!r} is reserved; choose another one.")
        _check_problem_type(self.name, self.problem_type)
        check_types(f" of task {self.name!r}", self, [item.name for item in dataclasses.fields(self)])
        for name, least in _LEAST_OF_TASK.items():
            if self.setting(name) < least:
                raise InputError(
                    f"{name}={getattr(self, name)!r} of task {self.name!r}; expected a whole number >= {least}."
                )
        if not 0 < self.setting("mlm_probability") <= 1:
            raise InputError(
                f"mlm_probability={self.mlm_probability!r} of task {self.name!r}; expected a number > 0, at most 1."
            )
        for field in self.fields or ():
            check_choice(
                f"input field of task {self.name!r}:", field, self.problem.fields + self.problem.optional_fields
            )

    def check(self) -> None:
        """Raise `InputError` unless a head can be built for this task."""
        self.check_name_and_type()
        if self.problem.has_label_names:
            if not self.labels:
                raise InputError(f"Task {self.name!r} ({self.problem_type}) needs its `labels`, e.g. ['no', 'yes'].")
            if len(set(self.labels)) != len(self.labels):
                raise InputError(f"Task {self.name!r} has a label twice: {self.labels!r}.")
        if self.class_weights is not None:
            if not self.problem.has_label_names:
                raise InputError(f"`class_weights` make no sense for task {self.name!r} ({self.problem_type}).")
            if len(self.class_weights) != self.num_outputs or min(self.class_weights) < 0:
                raise InputError(
                    f"Task {self.name!r} has {self.num_outputs} labels; found class_weights={self.class_weights!r}; "
                    "expected one number >= 0 for each label."
                )
        if ("table" in self.input_fields) != (self.table_columns is not None):
            raise InputError(
                f"Task {self.name!r} has fields={list(self.input_fields)!r} and table_columns={self.table_columns!r}; "
                'expected both of a task that reads rows of a table: fields=["table"], table_columns=["age", ...]; of '
                "others neither."
            )
        if self.label_scale is not None and self.label_scale <= 0:
            raise InputError(f"Task {self.name!r} has label_scale={self.label_scale!r}; expected a number > 0.")


def check_tasks(tasks: list[TaskConfig]) -> None:
    """Raise `InputError` unless the tasks fit together: at least one, unique names, `reads` that exist."""
    if not tasks:
        raise InputError("A multitask model needs at least one task; found none.")
    names = [task.name for task in tasks]
    by_slug: dict[str, str] = {}
    for task in tasks:
        task.check()
        if names.count(task.name) > 1:
            raise InputError(f"The task name {task.name!r} stands twice; names must be unique.")
        other = by_slug.setdefault(task_slug(task.name), task.name)
        if other != task.name:
            raise InputError(
                f"The task names {other!r} and {task.name!r} are the same in lower case with '_' for other "
                "characters, which is how parameters are named; choose another one."
            )
        for other in task.reads or ():
            check_choice(f"task in `reads` of task {task.name!r}:", other, names)
