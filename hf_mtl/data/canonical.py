"""Whatever a data set calls its columns, here they become input fields and a label, and every label is checked."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..modeling.configuration_multitask import LABELLED_PROBLEM_TYPES
from ..modeling.errors import InputError
from ..tasks import LABEL_FIELD, ROW_FIELD, TaskSpec
from .class_labels import ClassReader, form_of_numbers, label_set_reader, tag_reader, vocabulary
from .column_hints import give_texts
from .label_columns import (
    NO_LABEL,
    LabelColumn,
    choices_of_task_help,
    is_missing,
    names_of_feature,
    plain_column,
    whole_number,
)
from .label_values import choice_keys, choice_reader, number_reader, read_answers
from .row_places import RowPlaces

LIST_FIELDS = ("tokens", "choices")


def canonical_splits(
    spec: TaskSpec, splits: Mapping[str, Dataset], local: bool, places: Mapping[str, RowPlaces] | None = None
) -> dict[str, Dataset]:
    """Return the splits with the task's input fields and ``label`` as their only columns, and fill `spec.labels`.

    Labels become ids (single label: int, several: list of int, tags: list of int), floats, choice indices, or
    ``{"text": [...], "answer_start": [...]}``; names are kept in `spec.labels`, taken from the training split. Of a
    task that shares its source, rows without a label are left out, and `ROW_FIELD` keeps the others' places.

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
    if spec.labels is None and spec.problem_type in LABELLED_PROBLEM_TYPES:
        first = columns.get("train") or next(iter(columns.values()))
        if spec.source is not None:
            first = _with_labels(first)
        are_sorted = first.names is None and first.columns is None and _are_texts(first.values)
        spec.read_labels(vocabulary(spec, first), are_sorted)
    if spec.problem_type == "multi_label_classification" and spec.label_form is None and "train" in columns:
        # What the numbers of training rows are, those of other rows are, too.
        train = _with_labels(columns["train"]) if spec.source is not None else columns["train"]
        spec.label_form = form_of_numbers(spec, train)
    spec.check_metric_labels()
    canonical = {split: _canonical(spec, rows, columns[split], local) for split, rows in splits.items()}
    if spec.problem_type == "question_answering" and spec.null_answer is None and "train" in canonical:
        spec.null_answer = any(not label["text"] for label in canonical["train"][LABEL_FIELD])
    return canonical


def canonical_inputs(spec: TaskSpec, rows: Dataset, split: str) -> Dataset:
    """Return rows that have no labels with the task's input fields as their only columns.

    Raises:
        InputError: A missing column, or a field that is empty or of the wrong type.
    """
    fields = {name: _field(spec, rows, name, RowPlaces(split), local=False) for name in spec.input_fields}
    numbers = {} if spec.source is None else {ROW_FIELD: list(range(len(rows)))}
    return Dataset.from_dict({**fields, **numbers})


def _canonical(spec: TaskSpec, rows: Dataset, column: LabelColumn, local: bool) -> Dataset:
    """One split with input fields and label."""
    fields = {name: _field(spec, rows, name, column.places, local) for name in spec.input_fields}
    keys = choice_keys(spec, rows, local) if spec.problem_type == "multiple_choice" else None
    numbers = list(range(len(rows)))
    if spec.source is not None:
        numbers = [index for index, label in enumerate(column.values) if not _is_hole(label, column)]
        if not numbers:
            raise InputError(f"Task {spec.name!r}: no row of the {column.places.split} split has a label.")
        fields = {name: [values[index] for index in numbers] for name, values in fields.items()}
        fields[ROW_FIELD] = numbers
    values = [column.values[index] for index in numbers]
    kept = LabelColumn(values, column.names, column.places, column.columns, numbers)
    choices = [fields["choices"], keys and [keys[index] for index in numbers]] if "choices" in fields else []
    read = _label_reader(spec, kept, choices)
    labels = []
    for index, label in enumerate(values):
        where = f"Task {spec.name!r}, {kept.name_row(index)}"
        try:
            labels.append(read(label, index))
        except ValueError as error:
            raise InputError(f"{where}: the label is {label!r}; {error}.") from None
        _check_length(spec, fields, labels[-1], index, where)
    return Dataset.from_dict({**fields, LABEL_FIELD: labels})


def _label_reader(spec: TaskSpec, column: LabelColumn, choices: Sequence[Any]) -> Callable[[Any, int], Any]:
    """Return what reads the label of a row, given with its index."""
    if spec.problem_type == "multiple_choice":
        return choice_reader(spec, column, *choices)
    readers: dict[str, Callable[[], Callable[[Any], Any]]] = {
        "single_label_classification": lambda: ClassReader(spec, column),
        "multi_label_classification": lambda: label_set_reader(spec, column),
        "token_classification": lambda: tag_reader(spec, column, NO_LABEL),
        "regression": lambda: number_reader(column),
        "question_answering": lambda: read_answers,
    }
    read = readers[spec.problem_type]()
    return lambda label, index: read(label)


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
    """Whether a column's labels are texts, the first of them being so."""
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
        if not (is_list if name in LIST_FIELDS else isinstance(value, str)):
            kind = "a list of texts" if name in LIST_FIELDS else "a text"
            advice = choices_of_task_help(spec, rows) if name == "choices" else give_texts([str(source)])
            raise InputError(
                f"Task {spec.name!r}, {places.name(index)}: {name} is {value!r}; expected {kind}.{advice}"
            )
    return values


def _check_length(spec: TaskSpec, fields: Mapping[str, Sequence[Any]], label: Any, index: int, where: str) -> None:
    """Tags need one a word; a right choice must be among the choices; an answer must stand in its context."""
    if spec.problem_type == "token_classification" and len(label) != len(fields["tokens"][index]):
        raise InputError(f"{where}: {len(label)} tags for {len(fields['tokens'][index])} tokens; expected one each.")
    if spec.problem_type == "multiple_choice" and label >= len(fields["choices"][index]):
        raise InputError(
            f"{where}: the right choice is {label}; there are {len(fields['choices'][index])} choices, counted from 0."
        )
    if spec.problem_type == "question_answering":
        for text, start in zip(label["text"], label["answer_start"]):
            if fields["context"][index][start : start + len(text)] != text:
                raise InputError(f"{where}: the answer {text!r} does not stand at character {start} of its context.")
