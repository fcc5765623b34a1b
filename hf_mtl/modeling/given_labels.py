"""Labels that rows or their user give, in the form that features take."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from .errors import InputError, check_choice, nearest
from .input_rows import Row
from .label_checks import IGNORED_LABEL
from .task_config import TaskConfig
from .words import word_spans

# By task name a label per row, None where a row has none.
LabelsByTask = dict[str, list[Any]]

_LABEL_COLUMNS = ("label", "labels")
_ANSWER_COLUMN = "answers"
_LEAVE = "labels=False leaves them out."


def labels_of_rows(
    given: Sequence[Any], rows: Sequence[Row], tasks: Sequence[TaskConfig], labels: Any
) -> LabelsByTask:
    """Return labels by task, those of other tasks being left out; nothing where there is no label.

    Args:
        given: The rows as they were given, with all their columns.
        rows: Their input fields.
        tasks: The tasks to answer.
        labels: None for those of the rows, False for none, one per row of the only task, or these by task name.

    Raises:
        InputError: It is open which task labels are of, or a task has no such label.
    """
    if labels is False:
        return {}
    named = _labels_in(given, tasks) if labels is None else _labels_by_name(labels, tasks, len(rows))
    read: LabelsByTask = {}
    for task in tasks:
        values = named.get(task.name, [None] * len(rows))
        read[task.name] = [_read(task, value, rows[place], place) for place, value in enumerate(values)]
    return read if any(label is not None for values in read.values() for label in values) else {}


def _labels_in(given: Sequence[Any], tasks: Sequence[TaskConfig]) -> dict[str, list[Any]]:
    """The labels that stand in the rows, by task name."""
    named: dict[str, list[Any]] = {task.name: [None] * len(given) for task in tasks}
    for place, row in enumerate(given):
        column = _label_column(row, tasks)
        if column is None:
            continue
        value = row[column]
        by_task = value if isinstance(value, Mapping) and column != _ANSWER_COLUMN else None
        if by_task is not None and not {"text", "answer_start"} <= by_task.keys():
            for name in by_task:
                check_choice(f"task in the `{column}` of row {place}:", name, named)
                named[name][place] = by_task[name]
        elif len(tasks) == 1:
            named[tasks[0].name][place] = value
        else:
            raise InputError(
                f"Row {place}: {column}={value!r} could be of any of the tasks {', '.join(named)}; expected labels by "
                f"task name: processor(rows, labels={{{tasks[0].name!r}: [...]}}), or one task: "
                f"tasks={tasks[0].name!r}. {_LEAVE}"
            )
    return named


def _label_column(row: Any, tasks: Sequence[TaskConfig]) -> str | None:
    """The column of a row's labels; None where it has none."""
    if not isinstance(row, Mapping):
        return None
    is_of_answers = [task.problem.labels for task in tasks] == ["answers"]
    columns = (*_LABEL_COLUMNS, _ANSWER_COLUMN) if is_of_answers else _LABEL_COLUMNS
    return next((column for column in columns if row.get(column) is not None), None)


def _labels_by_name(labels: Any, tasks: Sequence[TaskConfig], count: int) -> dict[str, list[Any]]:
    names = [task.name for task in tasks]
    if not isinstance(labels, Mapping):
        if len(tasks) > 1:
            raise InputError(
                f"`labels` could be of any of the tasks {', '.join(names)}; expected labels by task name: "
                f"labels={{{names[0]!r}: [...]}}."
            )
        labels = {names[0]: labels}
    named = {}
    for name, values in labels.items():
        check_choice("task in `labels`:", name, names)
        named[name] = _listed(values)
        if len(named[name]) != count:
            raise InputError(
                f"The labels of task {name!r} are {len(named[name])}, the rows {count}; expected as many."
            )
    return named


def _listed(values: Any) -> list[Any]:
    try:
        return values.tolist() if isinstance(values, np.ndarray) else list(values)
    except TypeError:
        raise InputError(f"labels={values!r}; expected a list with one label per row. {_LEAVE}") from None


def _read(task: TaskConfig, value: Any, row: Row, place: int) -> Any:
    """A label as features take it; None for a row without one."""
    value = value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value
    if value is None or (isinstance(value, float) and math.isnan(value)) or value == IGNORED_LABEL:
        return None
    try:
        return _READERS[task.problem.labels](task, value, row)
    except ValueError as error:
        raise InputError(f"Row {place}: the label {value!r} of task {task.name!r}: {error}. {_LEAVE}") from None


def _class(task: TaskConfig, value: Any, row: Row | None = None) -> int | None:
    names = task.label_names
    if isinstance(value, str) and value in names:
        return names.index(value)
    if isinstance(value, int) and -1 <= value < len(names):
        # Data sets write -1 where a test row's class is not told.
        return int(value) if value >= 0 else None
    close = nearest(value, names).strip() if isinstance(value, str) else ""
    raise ValueError(
        f"expected one of {', '.join(names)}, or an id from 0 to {len(names) - 1}{close and f' ({close})'}"
    )


def _flags(task: TaskConfig, value: Any, row: Row) -> list[float]:
    names = task.label_names
    if isinstance(value, (list, tuple)) and all(isinstance(label, str) and label in names for label in value):
        return [float(name in value) for name in names]
    if isinstance(value, (list, tuple)) and len(value) == len(names) and all(flag in (0, 1) for flag in value):
        return [float(flag) for flag in value]
    raise ValueError(f"expected a list of names among {', '.join(names)}, or {len(names)} flags, 0 or 1 each")


def _number(task: TaskConfig, value: Any, row: Row) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise ValueError("expected a finite number")
    return float(value)


def _tags(task: TaskConfig, value: Any, row: Row) -> list[int]:
    count = len(row["tokens"]) if row.get("tokens") is not None else len(word_spans(row["text"]))
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise ValueError(f"expected a list of {count} tags, one per word")
    tags = [None if tag == IGNORED_LABEL else _class(task, tag) for tag in value]
    return [IGNORED_LABEL if tag is None else tag for tag in tags]


def _answers(task: TaskConfig, value: Any, row: Row) -> Mapping[str, list[Any]]:
    if isinstance(value, Mapping) and {"text", "answer_start"} <= value.keys():
        texts, starts = (_listed(value[key]) for key in ("text", "answer_start"))
        if len(texts) == len(starts) and all(isinstance(text, str) for text in texts):
            return {"text": texts, "answer_start": starts}
    raise ValueError('expected answers such as {"text": ["Bob"], "answer_start": [17]}')


def _choice(task: TaskConfig, value: Any, row: Row) -> int | None:
    choices = list(row["choices"])
    if isinstance(value, str) and value in choices:
        return choices.index(value)
    if isinstance(value, int) and not isinstance(value, bool) and -1 <= value < len(choices):
        return int(value) if value >= 0 else None
    raise ValueError(f"expected the place of the right choice, from 0 to {len(choices) - 1}")


def _pieces(task: TaskConfig, value: Any, row: Row) -> None:
    raise ValueError(
        "its rows have no labels: which word pieces are masked, to be told from the text itself, a trainer draws"
    )


# By kind of labels.
_READERS: dict[str, Callable[[TaskConfig, Any, Row], Any]] = {
    "class": _class,
    "label_set": _flags,
    "number": _number,
    "tags": _tags,
    "answers": _answers,
    "choice": _choice,
    "pieces": _pieces,
}
