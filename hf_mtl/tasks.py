"""A task in one row: what the checkpoint keeps of it, and where its data, metrics and weight come from."""

import copy
import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .metrics import check_metrics, default_metrics
from .modeling.errors import InputError, check_choice
from .modeling.modalities import MODALITIES, TABLE
from .modeling.tag_spans import SpanTags
from .modeling.task_config import TaskConfig
from .task_presets import PRESETS

SPLITS = ("train", "validation", "test")

# How rows of several labels say which hold: their ids or names, or a 0 or 1 per label.
LABEL_FORMS = ("ids", "flags")

# Settings of a task's row by their defaults, beside those that a checkpoint keeps.
ROW_SETTINGS: dict[str, Any] = {"weight": 1.0, "share": 1.0, "balance_classes": False}

# The label's column, in the words of `columns`.
LABEL_FIELD = "label"

# The column that keeps, for tasks which share a source, a row's place in it.
ROW_FIELD = "source_row"


@dataclass(frozen=True, kw_only=True)
class TaskSpec(TaskConfig):
    """A `TaskConfig` with its data set, columns, metrics and weight; what is None is not given.

    Args:
        dataset: A Hub data set, a folder with files named after splits, or ``package:<module>/<folder>``.
        subset: The Hub data set's configuration.
        data_files: Files of the user's own by split (csv, json, jsonl, parquet), instead of `dataset`.
        columns: The data set's column for each input field and for ``label``; a dot reads inside a column
            ("choices.text"), `choices` may be a list of columns, and `table` is one. A field left out has the column
            of its own name. A task that names an `image`, `audio` or `table` reads that, and a `text` only if it names
            one too.
        label_form: Of multi-label rows, where both could be meant: "ids" (they list the labels that hold) or "flags"
            (a 0 or 1 per label).
        local_columns: The same where ``--data_dir`` replaces the Hub and its files name columns otherwise.
        local_folder: The task's folder in ``--data_dir``; by default its name.
        splits: The data set's split for each of train, validation and test.
        validation_share: Share of the training rows that become the validation split where the data set has none; a
            hash of a row's input says which, so that equal inputs stay on one side.
        metrics: Names of `hf_mtl.metrics.METRICS`; by default those of the problem type.
        weight: Weight of the task's loss; by default 1.
        source: Tasks of one source are label columns of one data set: a row is drawn once and trains every task it has
            a label for, from one encoder pass; a label that is missing (None, NaN, -100) is no label. By default a
            task is a source of its own.
        share: Of `explicit` mixing: the source's share of the draws, relative to the others'; by default 1.
        learning_rate: Learning rate of the task's own parameters; by default the run's `parts_learning_rate`.
        patience: Evaluations without a better score after which the task stops training; by default it never does.
        max_train_samples: Training rows used at most, drawn with the seed; tasks of one source draw the same.
        max_eval_samples: Validation and test rows used at most, a random part that no seed changes.
        balance_classes: Weigh each label's loss by its rarity in the training rows, instead of by `class_weights`.
        measured: Filled in: which values were read off data or a model, and not given.
        labels_are_sorted: Filled in: whether the order of the labels is that of their texts, because nobody said
            another; ids then say nothing.
    """

    FILLED_IN = ("measured", "labels_are_sorted")

    dataset: str | None = None
    subset: str | None = None
    data_files: dict[str, str] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    label_form: str | None = None
    local_columns: dict[str, Any] | None = None
    local_folder: str | None = None
    splits: dict[str, str] = field(default_factory=dict)
    validation_share: float | None = None
    metrics: list[str] | None = None
    weight: float | None = None
    source: str | None = None
    share: float | None = None
    learning_rate: float | None = None
    patience: int | None = None
    max_train_samples: int | None = None
    max_eval_samples: int | None = None
    balance_classes: bool | None = None
    measured: tuple[str, ...] = ()
    labels_are_sorted: bool = False

    def __post_init__(self) -> None:
        if self.table_columns is None and isinstance(columns := self.columns.get(TABLE), (list, tuple)):
            # Said in the words of columns, kept in those of a task.
            object.__setattr__(self, "table_columns", list(columns))
        self.check_name_and_type()
        if not self.problem.has_label_column:
            self._check_text_alone()
        for name in {**self.columns, **(self.local_columns or {})}:
            check_choice(f"field in `columns` of task {self.name!r}:", name, [*self.input_fields, LABEL_FIELD])
        for split in {**self.splits, **(self.data_files or {})}:
            check_choice(f"split of task {self.name!r}:", split, SPLITS)
        if self.label_form is not None:
            check_choice(f"label_form of task {self.name!r}:", self.label_form, LABEL_FORMS)
        try:
            check_metrics(self.name, self.problem_type, self.metric_names)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(str(error)) from error
        for key in ("weight", "share", "learning_rate"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, (int, float)) or not 0 <= value < float("inf")):
                raise InputError(f"Task {self.name!r} has {key}={value!r}; expected a number >= 0.")
        if self.validation_share is not None and not 0 < self.validation_share < 1:
            raise InputError(
                f"Task {self.name!r} has validation_share={self.validation_share!r}; expected a number between 0 and "
                "1, such as 0.1."
            )
        for key in ("max_train_samples", "max_eval_samples", "max_length", "patience"):
            value = getattr(self, key)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise InputError(f"Task {self.name!r} has {key}={value!r}; expected a whole number >= 1.")

    def _check_text_alone(self) -> None:
        """Raise `InputError` for what a task whose texts are their own labels cannot have."""
        for name in ("columns", "local_columns"):
            if LABEL_FIELD in (getattr(self, name) or {}):
                raise InputError(
                    f"Task {self.name!r} ({self.problem_type}) learns from its text alone; leave {LABEL_FIELD!r} out "
                    f"of its `{name}`."
                )
        if self.labels is not None:
            raise InputError(f"Task {self.name!r} ({self.problem_type}) has no labels; leave `labels` out.")
        if self.source is not None:
            raise InputError(
                f"Task {self.name!r} ({self.problem_type}) masks its texts, so its rows are not those of another "
                f"task: source={self.source!r} cannot be shared. Leave `source` out; the data set may be the same one."
            )

    @property
    def given(self) -> dict[str, Any]:
        """The values that are given, by key; what was read off data or a model is not among them."""
        hidden = (*self.measured, *self.FILLED_IN)
        return {name: value for name, value in super().given.items() if name not in hidden and value != {}}

    def setting(self, name: str) -> Any:
        """Return a value, its default where the task does not give it; None where there is none."""
        value = getattr(self, name)
        return ROW_SETTINGS[name] if value is None and name in ROW_SETTINGS else super().setting(name)

    def with_measured(self, **values: Any) -> "TaskSpec":
        """Return the task with values that were read off data or a model."""
        return dataclasses.replace(self, measured=tuple({**dict.fromkeys(self.measured), **values}), **values)

    def without_measured(self) -> "TaskSpec":
        """Return the task without what was read off data or a model."""
        return dataclasses.replace(
            self, **dict[str, Any](dict.fromkeys(self.measured)), measured=(), labels_are_sorted=False
        )

    def show_labels(self, read: "TaskSpec") -> None:
        """Let a task that names no labels show those that its rows have, the only thing that is ever written to one:
        whoever loads rows by a task asks it what their ids mean.
        """
        if self.labels is None and read.labels is not None:
            object.__setattr__(self, "labels", read.labels)
            object.__setattr__(self, "measured", (*self.measured, "labels"))
            object.__setattr__(self, "labels_are_sorted", read.labels_are_sorted)

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The fields a row must have for this task: those given, or needed and named in `columns`."""
        if self.fields:
            return tuple(self.fields)
        named = {**self.columns, **(self.local_columns or {})}
        optional = tuple(name for name in self.problem.optional_fields if name in named)
        is_read_alone = "text" not in named and any(name in MODALITIES for name in optional)
        return optional if is_read_alone else self.problem.fields + optional

    @property
    def metric_names(self) -> list[str]:
        """The task's metrics, the problem type's own where the row names none."""
        return self.metrics or default_metrics(self.problem_type, self.labels)

    def check_metric_labels(self) -> None:
        """Raise `InputError` for metrics that cannot score the task's labels."""
        if self.labels is not None and "span_f1" in self.metric_names:
            self._check_span_labels(self.labels)
        if self.labels is not None and "f1" in self.metric_names and len(self.labels) != 2:
            raise InputError(
                f"Task {self.name!r}: f1 needs two classes, this task has {len(self.labels)}. Use f1_macro or "
                "f1_micro."
            )

    def _check_span_labels(self, labels: list[str]) -> None:
        span_tags = SpanTags.of(labels)
        if span_tags is None:
            raise InputError(
                f"Task {self.name!r}: span_f1 needs tags such as 'O', 'B-PER' and 'I-PER'; found "
                f"{', '.join(labels[:8])}. Use `metrics: [token_accuracy]`."
            )
        if span_tags.odd and not span_tags.parts:
            raise InputError(
                f"Task {self.name!r}: span_f1 needs tags such as 'O', 'B-PER' and 'I-PER'; found "
                f"{', '.join(map(repr, span_tags.odd[:8]))}, of which letters may mark spans or be parts of names. "
                "Rename them in the data: to 'B-PER' and 'I-PER' where they mark spans (a B- or I- tag must be among "
                "the labels), to 'I-mail' where 'mail' is a type; or score them with `metrics: [token_accuracy]`, and "
                "no spans are read."
            )
        if span_tags.odd:
            raise InputError(
                f"Task {self.name!r}: span_f1 needs tags of one scheme, such as 'O', 'B-PER' and 'I-PER'; found "
                f"{', '.join(map(repr, span_tags.odd[:8]))} beside {next(iter(span_tags.parts))!r}. Rename them in "
                "the data, or score them with `metrics: [token_accuracy]`."
            )

    @property
    def source_name(self) -> str:
        """The source its rows come from."""
        return self.source or self.name

    def to_config(self) -> TaskConfig:
        """Return the part that a checkpoint keeps."""
        return dataclasses.replace(super().to_config(), fields=list(self.input_fields))

    def column_of(self, name: str, local: bool) -> Any:
        """Return the data set's column (or columns) of an input field or of the label."""
        columns = {**self.columns, **((self.local_columns or {}) if local else {})}
        if name == LABEL_FIELD and not self.problem.has_label_column:
            name = self.input_fields[0]
        if name == TABLE and name not in columns:
            return self.table_columns or name
        return columns.get(name, name)


def tasks_by_source(specs: Iterable[TaskSpec]) -> dict[str, list[str]]:
    """Return the names of each source's tasks."""
    by_source: dict[str, list[str]] = {}
    for spec in specs:
        by_source.setdefault(spec.source_name, []).append(spec.name)
    return by_source


def join_sources(specs: Iterable[TaskSpec]) -> list[TaskSpec]:
    """Return tasks of which one whose name others give as their source shares it."""
    ordered = list(specs)
    shared = {spec.source for spec in ordered}
    return [
        dataclasses.replace(spec, source=spec.name) if spec.source is None and spec.name in shared else spec
        for spec in ordered
    ]


def as_spec(task: TaskConfig | Mapping[str, Any]) -> TaskSpec:
    """Return a task as a `TaskSpec`.

    Raises:
        InputError: An unknown key or value.
    """
    if isinstance(task, TaskSpec):
        return task
    return TaskSpec.from_dict(copy.deepcopy(task.to_dict() if isinstance(task, TaskConfig) else dict(task)))


def specs_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[TaskSpec]:
    """Build the tasks of a recipe; a row may begin with ``preset: glue/rte`` and override what differs.

    Raises:
        InputError: An unknown key, preset or value, or a name given twice.
    """
    specs = join_sources(_spec_from_row(row) for row in rows)
    if not specs:
        raise InputError("A recipe needs at least one row under `tasks:`.")
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"The task name {name!r} stands twice under `tasks:`; names must be unique.")
    return specs


def _spec_from_row(row: Mapping[str, Any]) -> TaskSpec:
    if not isinstance(row, Mapping):
        raise InputError(f"A row under `tasks:` must be a mapping such as `name: rte`; found {row!r}.")
    values = dict(row)
    if preset := values.pop("preset", None):
        check_choice("preset", preset, PRESETS)
        values = {**PRESETS[preset], **values}
    try:
        return TaskSpec.from_dict(values)
    except InputError:
        raise
    except (TypeError, AttributeError, ValueError) as error:
        raise InputError(f"Task {values.get('name', '?')!r} has a value of the wrong type: {error}") from error


GLUE: dict[str, TaskSpec] = {
    key.removeprefix("glue/"): TaskSpec(**row) for key, row in PRESETS.items() if key.startswith("glue/")
}


__all__ = [
    "GLUE",
    "LABEL_FIELD",
    "LABEL_FORMS",
    "ROW_FIELD",
    "ROW_SETTINGS",
    "SPLITS",
    "TaskSpec",
    "as_spec",
    "join_sources",
    "specs_from_rows",
    "tasks_by_source",
]
