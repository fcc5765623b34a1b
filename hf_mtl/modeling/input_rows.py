"""Rows as users have them: texts, mappings, tables, data sets with further columns; which tasks they are for."""

import difflib
import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from .errors import InputError, check_choice
from .modalities import FILE_ENDINGS, MODALITIES, TABLE
from .problem_types import input_fields
from .task_config import TaskConfig

Row = dict[str, Any]
# What predict and the processor take.
Rows = str | Mapping[str, Any] | Iterable[str | Mapping[str, Any]]
# The names of tasks, or one name.
TaskNames = str | Iterable[str]

ROW_FIELDS = tuple(input_fields())
LIST_FIELDS = ("tokens", "choices")

# Columns whose last word is one of these describe a row and are no input, whatever else stands in their names.
_DESCRIPTIONS = ("id", "ids", "idx", "index", "label", "labels", "length", "lang", "language", "type", "source", "url")
# How alike the name of a column and the field that it may stand for are at least.
_LIKENESS = 0.7


def tasks_named(tasks: Sequence[TaskConfig], names: TaskNames | None) -> list[TaskConfig]:
    """Return the tasks of these names in the model's order; all of them for None.

    Args:
        tasks: The model's tasks.
        names: Names in any collection, or one name.

    Raises:
        InputError: There is no such task, or no name.
    """
    if names is None:
        return list(tasks)
    task_names = [task.name for task in tasks]
    if isinstance(names, (bytes, TaskConfig)) or not isinstance(names, Iterable):
        raise InputError(f"tasks={names!r}; expected names of tasks, or None for all: {', '.join(task_names)}.")
    wanted = [names] if isinstance(names, str) else list(names)
    for name in wanted:
        check_choice("task", name, task_names)
    if not wanted:
        raise InputError(f"tasks={names!r} names no task; expected some of {', '.join(task_names)}, or None for all.")
    return [task for task in tasks if task.name in wanted]


def listed_rows(rows: Any) -> list[Any]:
    """Return rows as a list: one row, several, columns of rows (a mapping of lists), a table of pandas.

    Raises:
        InputError: They are no rows, several splits, or columns of several lengths.
    """
    kinds = {kind.__name__ for kind in type(rows).__mro__}
    if "DataFrame" in kinds:
        return _rows_of_table(rows)
    if isinstance(rows, Mapping) and kinds & {"DatasetDict", "IterableDatasetDict"}:
        splits = ", ".join(map(str, rows))
        raise InputError(
            f"The rows are a data set with the splits {splits}; give one: rows[{next(iter(rows), '')!r}]."
        )
    if "Dataset" in kinds:
        rows = _undecoded(rows)
    if isinstance(rows, Mapping):
        return _rows_of_columns(rows) if _holds_columns(rows) else [rows]
    if isinstance(rows, (str, bytes, PurePath)) or type(rows).__module__.partition(".")[0] == "PIL":
        return [rows]
    if not isinstance(rows, Iterable):
        raise InputError(
            f"The rows are {rows!r}; expected a text, a mapping of input fields such as {{'text': '...'}}, or a list "
            "of them."
        )
    return list(rows)


def _undecoded(rows: Any) -> Any:
    """A data set whose images and sounds are files, which are read here; anything else as it is."""
    for name, feature in (getattr(rows, "features", None) or {}).items():
        if type(feature).__name__ in ("Image", "Audio") and feature.decode:
            rows = rows.cast_column(name, type(feature)(decode=False))
    return rows


def _rows_of_table(table: Any) -> list[Any]:
    # A table of another library is iterated over by its columns, whose names would pass for texts.
    if type(table).__module__.partition(".")[0] != "pandas":
        raise InputError("The rows are a DataFrame, but not of pandas; expected a list of mappings: frame.to_dicts().")
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _holds_columns(rows: Mapping[str, Any]) -> bool:
    """Return whether a mapping's values are of several rows: one of its texts is a list, or its lists hold lists."""
    for field in ROW_FIELDS:
        # An array is one image or sound.
        values = rows.get(field) if field in MODALITIES else _plain(rows.get(field))
        if isinstance(values, (list, tuple)):
            inside = (list, tuple, np.ndarray)
            if field not in LIST_FIELDS or (values and all(isinstance(value, inside) for value in values)):
                return True
    return False


def _plain(value: Any) -> Any:
    """A list for an array, a column of a data set or of a table."""
    if isinstance(value, (str, bytes, Mapping, list, tuple)) or not isinstance(value, Iterable):
        return value
    return value.tolist() if isinstance(value, np.ndarray) else list(value)


def _rows_of_columns(columns: Mapping[str, Any]) -> list[Row]:
    lists = {name: _plain(values) for name, values in columns.items()}
    lengths = {
        name: len(values) if isinstance(values, (list, tuple)) else None
        for name, values in lists.items()
        if values is not None
    }
    if len(set(lengths.values())) > 1:
        described = ", ".join(f"{name} {'one value' if size is None else size}" for name, size in lengths.items())
        raise InputError(
            f"The rows are a mapping of columns of several lengths: {described}. Give lists of one length, or a list "
            "of mappings, one per row."
        )
    count = next(iter(lengths.values())) or 0
    return [{name: values[place] for name, values in lists.items() if values is not None} for place in range(count)]


def missing_fields(task: TaskConfig, row: Mapping[str, Any]) -> list[str]:
    """Return the input fields a task needs and a row lacks; a text stands in for tokens."""
    lacking = [field for field in task.input_fields if row.get(field) is None]
    cells, columns = row.get(TABLE), task.table_columns
    if columns and isinstance(cells, Mapping) and not any(name in cells for name in columns):
        # Another task's columns.
        lacking.append(TABLE)
    return [field for field in lacking if field != "tokens" or row.get("text") is None]


def check_row(row: Any, place: str, tasks: Sequence[TaskConfig], needs_all: bool) -> Row:
    """Return the input fields of a row; its other columns are left out.

    Args:
        row: A text or a mapping; an image or a sound itself, where tasks read nothing else.
        place: What a message calls it.
        tasks: The tasks to answer.
        needs_all: Whether it must have the fields of all of them, or of one at least.

    Raises:
        InputError: The row is of another type, one of its fields is missing or of the wrong type, or a column's name
            is so like a field which it lacks that it may stand for it.
    """
    if not isinstance(row, Mapping) and (field := _only_medium(tasks)):
        row = {field: row}
    if isinstance(row, str) and (field := _file_of(row, tasks)):
        raise InputError(
            f"{place} is {row!r}, a file that would be read as a text; write {{{field!r}: {row!r}}}, or "
            "{'text': ...} if its name is meant."
        )
    if not isinstance(row, (str, Mapping)):
        listed = isinstance(row, (list, tuple)) and all(isinstance(part, str) for part in row)
        hint = " Words are {'tokens': [...]}, two texts {'text': ..., 'text_pair': ...}." if listed else ""
        if media := [field for field in MODALITIES if any(field in task.input_fields for task in tasks)]:
            hint += " Others are " + ", ".join(f"{{{field!r}: ...}}" for field in media) + "."
        raise InputError(
            f"{place} is {row!r}; expected a text, or a mapping of input fields: {{'text': '...'}}.{hint}"
        )
    given = {"text": row} if isinstance(row, str) else _with_table(row, tasks)
    checked = {field: _checked_value(field, value, place) for field, value in given.items() if field in ROW_FIELDS}
    _refuse_likely_fields(given, checked, place, tasks)
    lacking = {task.name: fields for task in tasks if (fields := missing_fields(task, checked))}
    if needs_all and lacking:
        name, fields = next(iter(lacking.items()))
        if fields[0] in given:
            raise InputError(f"{place}: {fields[0]} is empty, which task {name!r} needs.")
        raise InputError(f"{place}: no field {fields[0]!r}, which task {name!r} needs.{_columns_to_rename(given)}")
    if len(lacking) == len(tasks):
        nearest_tasks = sorted(lacking.items(), key=lambda item: len(item[1]))
        needs = "; ".join(f"{name} needs {' and '.join(fields)}" for name, fields in nearest_tasks[:4])
        holds = ", ".join(f"{field}={_shortened(value)}" for field, value in checked.items()) or "no field"
        raise InputError(f"{place}: {holds}; no task can be answered from that: {needs}.{_columns_to_rename(given)}")
    return checked


def _file_of(text: str, tasks: Sequence[TaskConfig]) -> str | None:
    """The field of an image or a sound that tasks read, whose file a text is."""
    read = {field for task in tasks for field in task.input_fields}
    field = next((field for field, endings in FILE_ENDINGS.items() if text.lower().endswith(endings)), None)
    return field if field in read and Path(text).is_file() else None


def _only_medium(tasks: Sequence[TaskConfig]) -> str | None:
    """The field of images or sounds, where tasks read nothing else, so that a row is one of them."""
    fields = {field for task in tasks for field in task.input_fields}
    return fields.pop() if len(fields) == 1 and fields <= MODALITIES.keys() - {TABLE} else None


def _with_table(row: Mapping[str, Any], tasks: Sequence[TaskConfig]) -> Mapping[str, Any]:
    """A row with the columns of tables that tasks read under one name, where they stand among its own."""
    columns = dict.fromkeys(name for task in tasks for name in task.table_columns or ())
    if not columns or isinstance(row.get(TABLE), Mapping):
        return row
    cells = {name: row[name] for name in columns if name in row}
    # A column may be called as a field is.
    fields = {field for task in tasks for field in task.input_fields} - {TABLE}
    others = {name: value for name, value in row.items() if name not in cells or name in fields}
    return {**others, TABLE: cells or None}


def _checked_value(field: str, value: Any, place: str) -> Any:
    """The value of an input field: a text, or a list of texts; None where the row has none."""
    if value is None or field in MODALITIES:
        # Whoever reads it says what is wrong with it.
        return value
    is_list = field in LIST_FIELDS
    value = value.tolist() if isinstance(value, np.ndarray) else value
    texts = value if is_list and isinstance(value, (list, tuple)) else [value]
    is_right = isinstance(value, (list, tuple)) == is_list and all(isinstance(text, str) for text in texts)
    # An empty text is a text, of which nothing is said; without a word or a choice there is nothing to answer.
    if not is_right or (is_list and not value):
        kind = "a list of texts that is not empty" if is_list else "a text"
        several = " Several rows are a list of mappings." if isinstance(value, (list, tuple)) and not is_list else ""
        raise InputError(f"{place}: {field}={_shortened(value)}; expected {kind}.{several}")
    if any("\ud800" <= character <= "\udfff" for text in texts if not text.isascii() for character in text):
        raise InputError(
            f"{place}: {field}={_shortened(value)} holds half of a character (a surrogate); write it whole."
        )
    return value


def _refuse_likely_fields(given: Mapping[str, Any], checked: Row, place: str, tasks: Sequence[TaskConfig]) -> None:
    """Refuse a column that may be meant as a field which a task reads and the row lacks."""
    others = [name for name in given if name not in ROW_FIELDS]
    if not others:
        return
    read = {field: None for task in tasks for field in task.input_fields}
    lacking = tuple(field for field in read if checked.get(field) is None)
    for name in others:
        field = _likely_field(str(name), lacking) if _may_be_input(given[name]) else None
        if field is not None:
            raise InputError(
                f"{place}: unknown input field {name!r}; expected {', '.join(ROW_FIELDS)}. Did you mean {field!r}? "
                "Rename it, or leave it out."
            )


def _may_be_input(value: Any) -> bool:
    value = value.tolist() if isinstance(value, np.ndarray) else value
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    return all(isinstance(item, str) for item in value) if is_list else isinstance(value, str)


def _is_medium(value: Any) -> bool:
    """Return whether a value is an image or a sound, and no path of one."""
    is_file = isinstance(value, Mapping) and bool(value.keys() & {"bytes", "array"})
    return is_file or isinstance(value, bytes) or type(value).__module__.partition(".")[0] == "PIL"


@functools.lru_cache(maxsize=1024)
def _likely_field(column: str, fields: tuple[str, ...]) -> str | None:
    """Return the field among `fields` that a column of this name most likely stands for; None for none of them."""
    words = [word for word in re.split(r"[^a-z0-9]+", column.lower()) if word]
    if not words or words[-1] in _DESCRIPTIONS:
        return None
    by_name = {field.replace("_", ""): field for field in fields}
    close = difflib.get_close_matches("".join(words), list(by_name), n=1, cutoff=_LIKENESS)
    return by_name[close[0]] if close else None


def _columns_to_rename(given: Mapping[str, Any]) -> str:
    """Return what to say of a row's other columns, one of which may be the field that it lacks."""
    others = {name: value for name, value in given.items() if name not in ROW_FIELDS}
    texts = [str(name) for name, value in others.items() if _may_be_input(value) or _is_medium(value)]
    if "input_ids" in given and not texts:
        return " Give the texts, which are tokenised here; what a tokenizer returned is for model(**inputs)."
    return f" It has the columns {', '.join(texts[:6])}: rename the one that is meant." if texts else ""


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
