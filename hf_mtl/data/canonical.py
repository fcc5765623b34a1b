"""Whatever a data set calls its columns, here they become input fields and a label, and every label is checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from datasets import Dataset

from ..modeling.errors import InputError
from ..modeling.modalities import MODALITIES
from ..tasks import LABEL_FIELD, ROW_FIELD, TaskSpec
from .column_hints import give_texts
from .label_columns import (
    LabelColumn,
    choices_of_task_help,
    is_missing,
    names_of_feature,
    plain_column,
    whole_number,
)
from .label_kinds import label_kind
from .label_values import choice_keys
from .media_columns import media_column, with_media
from .row_places import RowPlaces

_LIST_FIELDS = ("tokens", "choices")


def canonical_splits(
    spec: TaskSpec, splits: Mapping[str, Dataset], local: bool, places: Mapping[str, RowPlaces] | None = None
) -> dict[str, Dataset]:
    """Return the splits with the task's input fields and ``label`` as their only columns; see `canonical_task`."""
    return canonical_task(spec, splits, local, places)[1]


def canonical_task(
    spec: TaskSpec, splits: Mapping[str, Dataset], local: bool, places: Mapping[str, RowPlaces] | None = None
) -> tuple[TaskSpec, dict[str, Dataset]]:
    """Return a task with what its training rows say of it, and its splits with its input fields and ``label`` as their
    only columns.

    Labels become ids (single label: int, several: list of int, tags: list of int), floats, choice indices, or
    ``{"text": [...], "answer_start": [...]}``; their names are the task's `labels`. Of a task that shares its source,
    rows without a label are left out, and `ROW_FIELD` keeps the others' places.

    Args:
        spec: The task.
        splits: Its data sets by split.
        local: Whether the task's `local_columns` apply.
        places: Where the rows stand, by split; by default they are counted from 0.

    Raises:
        InputError: A missing column, or a field or label that is empty, NaN, out of range or of the wrong type.
    """
    places = {split: RowPlaces(split) for split in splits} | dict(places or {})
    columns = {split: _label_column(spec, rows, local, places[split]) for split, rows in splits.items()}
    kind = label_kind(spec)
    if spec.labels is None and spec.problem.has_label_names:
        first = columns.get("train") or next(iter(columns.values()))
        if spec.source is not None:
            first = _with_labels(first)
        are_sorted = first.names is None and first.columns is None and _are_texts(first.values)
        spec = spec.with_measured(labels=kind.vocabulary(spec, first))
        spec = dataclasses.replace(spec, labels_are_sorted=are_sorted)
    if "train" in columns:
        # What the labels of training rows are, those of other rows are, too.
        train = _with_labels(columns["train"]) if spec.source is not None else columns["train"]
        spec = spec.with_measured(**kind.form(spec, train))
    spec.check_metric_labels()
    canonical = {split: _canonical(spec, rows, columns[split], local) for split, rows in splits.items()}
    if "train" in canonical:
        spec = spec.with_measured(**kind.facts(spec, canonical["train"][LABEL_FIELD]))
    return spec, canonical


def canonical_inputs(spec: TaskSpec, rows: Dataset, split: str) -> Dataset:
    """Return rows that have no labels with the task's input fields as their only columns.

    Raises:
        InputError: A missing column, or a field that is empty or of the wrong type.
    """
    places = RowPlaces(split)
    texts, media = _fields_apart(spec)
    fields = {name: _field(spec, rows, name, places, local=False) for name in texts}
    numbers = {} if spec.source is None and texts else {ROW_FIELD: list(range(len(rows)))}
    columns = {name: media_column(spec, rows, name, places, local=False) for name in media}
    return with_media(Dataset.from_dict({**fields, **numbers}), columns)


def _fields_apart(spec: TaskSpec) -> tuple[list[str], list[str]]:
    """The fields of a task that are texts, and those that are not."""
    media = [name for name in spec.input_fields if name in MODALITIES]
    return [name for name in spec.input_fields if name not in media], media


def _canonical(spec: TaskSpec, rows: Dataset, column: LabelColumn, local: bool) -> Dataset:
    """One split with input fields and label."""
    texts, media = _fields_apart(spec)
    fields = {name: _field(spec, rows, name, column.places, local) for name in texts}
    columns = {name: media_column(spec, rows, name, column.places, local) for name in media}
    keys = choice_keys(spec, rows, local) if "choices" in fields else None
    numbers = list(range(len(rows)))
    if spec.source is not None:
        numbers = [index for index, label in enumerate(column.values) if not _is_hole(label, column)]
        if not numbers:
            raise InputError(f"Task {spec.name!r}: no row of the {column.places.split} split has a label.")
        fields = {name: [values[index] for index in numbers] for name, values in fields.items()}
        columns = {name: values.take(pa.array(numbers)) for name, values in columns.items()}
        fields[ROW_FIELD] = numbers
    values = [column.values[index] for index in numbers]
    kept = LabelColumn(values, column.names, column.places, column.columns, numbers)
    kind = label_kind(spec)
    read = kind.reader(spec, kept, fields, keys and [keys[index] for index in numbers])
    labels = []
    for index, label in enumerate(values):
        where = f"Task {spec.name!r}, {kept.name_row(index)}"
        try:
            labels.append(read(label, index))
        except ValueError as error:
            raise InputError(f"{where}: the label is {label!r}; {error}.") from None
        try:
            kind.check(labels[-1], fields, index)
        except ValueError as error:
            raise InputError(f"{where}: {error}.") from None
    return with_media(Dataset.from_dict({**fields, LABEL_FIELD: labels}), columns)


def _label_column(spec: TaskSpec, rows: Dataset, local: bool, places: RowPlaces) -> LabelColumn:
    source = spec.column_of(LABEL_FIELD, local)
    if isinstance(source, (list, tuple)):
        names = list(map(str, source))
        columns = [_named_values(plain_column(spec, rows, name, places.split), rows, name) for name in names]
        return LabelColumn([list(values) for values in zip(*columns)], None, places, names)
    values = plain_column(spec, rows, str(source), places.split)
    return LabelColumn(values, names_of_feature(rows.features, str(source)), places)


def _named_values(values: list[Any], rows: Dataset, source: str) -> list[Any]:
    """A column of flags, of ClassLabel by its names: "no" may be class 1."""
    names = names_of_feature(rows.features, source)
    if names is None:
        return values
    return [names[value] if isinstance(value, int) and 0 <= value < len(names) else value for value in values]


def _with_labels(column: LabelColumn) -> LabelColumn:
    """The rows of a column that have a label."""
    values = [whole_number(value) for value in column.values if not _is_hole(value, column)]
    return LabelColumn(values, column.names, column.places, column.columns)


def _is_hole(label: Any, column: LabelColumn) -> bool:
    return is_missing(label, named=column.names is not None)


def _are_texts(values: Sequence[Any]) -> bool:
    """Return whether a column's labels are texts, the first of them being so."""
    items = (item for value in values for item in (value if isinstance(value, (list, tuple)) else [value]))
    return isinstance(next((item for item in items if item is not None), None), str)


def _field(spec: TaskSpec, rows: Dataset, name: str, places: RowPlaces, local: bool) -> list[Any]:
    """The values of a field, from one column, from inside one, or from several."""
    source = spec.column_of(name, local)
    if isinstance(source, (list, tuple)):
        columns = [plain_column(spec, rows, str(item), places.split) for item in source]
        values: list[Any] = [list(items) for items in zip(*columns)]
    else:
        values = plain_column(spec, rows, str(source), places.split)
    for index, value in enumerate(values):
        is_list = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value) and len(value) > 0
        if not (is_list if name in _LIST_FIELDS else isinstance(value, str)):
            kind = "a list of texts" if name in _LIST_FIELDS else "a text"
            advice = choices_of_task_help(spec, rows) if name == "choices" else give_texts([str(source)])
            raise InputError(
                f"Task {spec.name!r}, {places.name(index)}: {name} is {value!r}; expected {kind}.{advice}"
            )
    return values
