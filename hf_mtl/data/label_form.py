"""The two forms of rows with several labels: ids or names of those that hold, or a 0 or 1 per label."""

from collections.abc import Sequence
from typing import Any

from ..modeling.errors import InputError
from ..tasks import LABEL_FORMS, TaskSpec
from .label_columns import LabelColumn, whole_number

# Texts that could be flags in a list of labels.
_DIGITS = ("0", "1")


def is_id(value: Any) -> bool:
    """Return whether a label is a whole number that may be the id of a class."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def first_ids(count: int) -> list[str]:
    """Return the ids from 0 on as texts."""
    return [str(index) for index in range(count)]


def label_form(spec: TaskSpec, column: LabelColumn) -> str:
    """Return whether a column's rows list the labels that hold ("ids": ids or names) or say 0 or 1 of each ("flags").

    ClassLabel ids and names are "ids", floats and booleans "flags". Whole numbers (and texts such as "0" and "1") are
    what the task's `label_form` says, else what alone they can be.

    Args:
        spec: The task, perhaps without labels yet.
        column: Lists of labels.

    Raises:
        InputError: Both could be meant, or neither.
    """
    if column.columns is not None:
        return "flags"
    for index, value in enumerate(column.values):
        if not isinstance(value, (list, tuple)):
            raise InputError(
                f"Task {spec.name!r}, {column.name_row(index)}: the label is {value!r}; expected a list of labels, or "
                "a column of 0s and 1s per label: `columns: {label: [first, second]}`."
            )
    items = [item for row in column.values for item in row]
    if column.names is not None:
        return "ids"
    if any(isinstance(item, (bool, float)) for item in items):
        return "flags"
    if any(isinstance(item, str) and item not in _DIGITS for item in items):
        return "ids"
    return spec.label_form or _form_of_numbers(spec, column, items)


def form_of_numbers(spec: TaskSpec, column: LabelColumn) -> str | None:
    """Return the form of a column whose labels are whole numbers or texts of them; None of any other column.

    Raises:
        InputError: As `label_form`.
    """
    form = label_form(spec, column)
    items = [item for row in column.values for item in row]
    of_numbers = column.columns is None and column.names is None and bool(items)
    plain = all(not isinstance(item, (bool, float)) and (is_id(item) or item in _DIGITS) for item in items)
    return form if of_numbers and plain else None


def _form_of_numbers(spec: TaskSpec, column: LabelColumn, items: Sequence[Any]) -> str:
    """The form of lists of 0s and 1s, or of other numbers."""
    rows, names = column.values, spec.labels
    lengths = {len(row) for row in rows}
    even = len(lengths) == 1 and (names is None or lengths == {len(names)}) and max(lengths) > 0
    as_flags = even and all(str(item) in _DIGITS for item in items)
    twice = next((index for index, row in enumerate(rows) if _stands_twice(row)), None)
    ids = set(names or ()) | set(range(len(names or ()))) | set(first_ids(len(names or ())))
    as_ids = twice is None and (names is None or all(item in ids for item in items))
    say = f"`label_form: {LABEL_FORMS[1]}` (0 or 1 per label) or `label_form: {LABEL_FORMS[0]}`"
    if as_flags and as_ids:
        raise InputError(
            f"Task {spec.name!r}: the labels of the {column.places.split} rows, such as {list(rows[0])}, could be ids "
            f"of classes or a 0 or 1 per class. Say which in the task's row: {say}."
        )
    if as_flags:
        return "flags"
    if twice is not None:
        raise InputError(
            f"Task {spec.name!r}, {column.name_row(twice)}: a label stands twice in {list(rows[twice])}; expected ids "
            "or names of the labels that hold, each once, or lists of equal length with a 0 or 1 per label"
            f"{'' if names is None else f' ({len(names)} of them)'}. Where the rows are one of them, say which: {say}."
        )
    return "ids"


def _stands_twice(row: Sequence[Any]) -> bool:
    return len({repr(whole_number(item)) for item in row}) < len(row)
