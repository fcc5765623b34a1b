"""Classes, tags and sets of labels become ids of the task's names, whatever the data set calls them.

An id means nothing but by the names it belongs to: a ClassLabel column's ids go through that column's names to the
task's, so that splits whose vocabularies have another order meet in the right class.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ..modeling.errors import InputError
from ..tasks import TaskSpec
from .label_columns import LabelColumn, is_missing, listed, whole_number
from .label_form import first_ids, is_id, label_form

# Class names of a column of booleans.
_BOOLEAN_NAMES = ["False", "True"]
_OUTSIDE = "O"
# Of a number; longer ones are texts.
_MOST_DIGITS = 19


def class_vocabulary(spec: TaskSpec, column: LabelColumn) -> list[str]:
    """Return a task's class names in id order, from its training rows: those of a ClassLabel column, else the names
    or ids that occur.

    Raises:
        InputError: Values that are no classes.
    """
    if column.names is not None:
        return list(column.names)
    if column.columns is not None:
        return _titles(column.columns)
    return _names_of(spec, column, list(enumerate(column.values)))


def label_set_vocabulary(spec: TaskSpec, column: LabelColumn) -> list[str]:
    """Return the names of the labels of sets in id order, likewise; of columns of flags, these.

    Raises:
        InputError: As `class_vocabulary`, or as `label_form`.
    """
    if column.names is None and column.columns is None and label_form(spec, column) == "flags":
        return first_ids(max(map(len, column.values)))
    return class_vocabulary(spec, column) if _has_names(column) else _names_of(spec, column, _items(column))


def tag_vocabulary(spec: TaskSpec, column: LabelColumn) -> list[str]:
    """Return the names of tags in id order, likewise; what says that a word has none is no name.

    Raises:
        InputError: As `class_vocabulary`.
    """
    if _has_names(column):
        return class_vocabulary(spec, column)
    return _names_of(spec, column, [(row, tag) for row, tag in _items(column) if not is_missing(tag, named=True)])


def _has_names(column: LabelColumn) -> bool:
    return column.names is not None or column.columns is not None


def _items(column: LabelColumn) -> list[tuple[int, Any]]:
    """Return what stands in the lists of a column, each with its row."""
    lists = [value if isinstance(value, (list, tuple)) else [value] for value in column.values]
    return [(row, item) for row, items in enumerate(lists) for item in items]


def _names_of(spec: TaskSpec, column: LabelColumn, rows: Sequence[tuple[int, Any]]) -> list[str]:
    """The names of labels, each given with its row."""
    rows = [(row, whole_number(value)) for row, value in rows if value is not None]
    values = [value for _, value in rows]
    if values and all(isinstance(value, bool) for value in values):
        return list(_BOOLEAN_NAMES)
    if values and all(isinstance(value, str) and value for value in values):
        names = set(values)
        if all(map(_is_number, names)):
            return sorted(names, key=int)
        # "O" first, so that an untrained or cut-off word is outside every span.
        return sorted(names, key=lambda name: (name != _OUTSIDE, name))
    if values and all(is_id(value) for value in values):
        return [str(value) for value in sorted(set(values))]
    odd_rows = [(row, value) for row, value in rows if not is_id(value) and not (isinstance(value, str) and value)]
    row, odd = [*odd_rows, *rows, (0, None)][0]
    mixed = "; texts and numbers stand in one column" if not odd_rows and rows else ""
    raise InputError(
        f"Task {spec.name!r} ({spec.problem_type}), {column.name_row(row)}: the label {odd!r} is none{mixed}; "
        "expected class names or whole numbers >= 0."
    )


def _is_number(text: str) -> bool:
    """Return whether a text is a whole number as it is usually written: "7" and "-3", not "07"."""
    digits = text.removeprefix("-")
    return digits.isdecimal() and digits.isascii() and len(digits) < _MOST_DIGITS and str(int(text)) == text


class ClassReader:
    """Reads the classes of one column as ids of the task's names.

    Args:
        spec: The task, its labels known.
        column: The column; of lists, with their items as values.

    Raises:
        InputError: A class of the column that the task lacks, or numbers that could be ids and names.
    """

    def __init__(self, spec: TaskSpec, column: LabelColumn) -> None:
        self.spec, self.split = spec, column.places.split
        self.names = list(spec.labels or ())
        self.ids = {name: index for index, name in enumerate(self.names)}
        self.column_names = None if self._are_numbers_only(column.names) else column.names
        if self.column_names is not None:
            self._check_names(column.values)
        values = list(map(whole_number, column.values))
        texts = {value for value in values if isinstance(value, str)}
        numbers = sorted({value for value in values if isinstance(value, int) and not isinstance(value, bool)})
        numeric = [name for name in self.names if _is_number(name)]
        # Where the names are numbers (product codes, years, stars), a number is a name; else it is an id.
        self.numbers_are_names = len(numeric) == len(self.names)
        self.texts_are_ids = not numeric and bool(texts) and all(map(self._is_id_text, texts))
        ids = sorted(map(int, texts)) if self.texts_are_ids else numbers
        nameless = self.column_names is None and not self.numbers_are_names
        if spec.labels_are_sorted and nameless and ids and all(0 <= value < len(self.names) for value in ids):
            _refuse_order(spec, self.split, f"ids such as {ids[0]}")

    def _are_numbers_only(self, column_names: Sequence[str] | None) -> bool:
        """Return whether a ClassLabel's names are "0", "1", ..., which say no more than the ids do."""
        if column_names is None or len(column_names) > len(self.names):
            return False
        numbered = first_ids(len(column_names))
        return list(column_names) == numbered and not any(name in self.ids for name in numbered)

    def _check_names(self, values: Sequence[Any]) -> None:
        assert self.column_names is not None
        used = sorted({value for value in values if is_id(value) and value < len(self.column_names)})
        if lacking := [self.column_names[value] for value in used if self.column_names[value] not in self.ids]:
            raise InputError(
                f"Task {self.spec.name!r}: the {self.split} split has the classes {listed(self.column_names)}; the "
                f"task has {listed(self.names)}. {lacking[0]!r} is none of these. Write the same names under "
                "`labels:` (their order is free), or rename the column's: rows.cast_column(column, ClassLabel(...))."
            )

    def _is_id_text(self, text: str) -> bool:
        return _is_number(text) and 0 <= int(text) < len(self.names)

    def __call__(self, label: Any) -> int:
        """Return the id of a label.

        Raises:
            ValueError: It is none of the task's labels.
        """
        label = whole_number(label)
        if isinstance(label, bool):
            return self._boolean(label)
        if isinstance(label, str):
            return self._text(label)
        if not isinstance(label, int):
            raise ValueError(self._expected())
        if self.column_names is not None:
            if not 0 <= label < len(self.column_names):
                hole = "; -1 is no label: leave such rows out, data.filter(lambda row: row['label'] != -1)"
                last = len(self.column_names) - 1
                raise ValueError(f"expected a whole number from 0 to {last}{hole if label == -1 else ''}")
            return self.ids[self.column_names[label]]
        if self.numbers_are_names and str(label) in self.ids:
            return self.ids[str(label)]
        if self.numbers_are_names or not 0 <= label < len(self.names):
            raise ValueError(self._expected())
        return label

    def _are_booleans(self) -> bool:
        return sorted(name.casefold() for name in self.names) == ["false", "true"]

    def _boolean(self, label: bool) -> int:
        if self._are_booleans():
            return [name.casefold() for name in self.names].index(str(label).casefold())
        if self.names == ["0", "1"]:
            return int(label)
        raise ValueError(f"expected one of {listed(self.names)}, as text; true and false are none of these names")

    def _text(self, label: str) -> int:
        if label in self.ids:
            return self.ids[label]
        if self.texts_are_ids:
            return int(label)
        if self._are_booleans() and label.casefold() in ("false", "true"):
            return self._boolean(label.casefold() == "true")
        raise ValueError(f"expected one of {listed(self.names)}")

    def _expected(self) -> str:
        if self.numbers_are_names and self.names != first_ids(len(self.names)):
            return f"expected one of {listed(self.names)}"
        return f"expected a whole number from 0 to {len(self.names) - 1} or a label's name"


def _refuse_order(spec: TaskSpec, split: str, what: str) -> NoReturn:
    raise InputError(
        f"Task {spec.name!r}: the {split} split has {what}, the training rows the names {listed(spec.labels or ())}, "
        "whose order nobody has said. Write it: `labels: [...]`."
    )


def label_set_reader(spec: TaskSpec, column: LabelColumn) -> Callable[[Any], list[int]]:
    """Return what reads a row's labels as ids: lists of ids or names, or flags.

    Raises:
        InputError: As `label_form` and `ClassReader`.
    """
    if label_form(spec, column) == "flags":
        if spec.labels_are_sorted and column.columns is None:
            _refuse_order(spec, column.places.split, f"flags such as {list(column.values[0])}")
        return _flag_reader(spec, column)
    items = [item for row in column.values for item in row]
    one = ClassReader(spec, LabelColumn(items, column.names, column.places))

    def read(labels: Sequence[Any]) -> list[int]:
        ids = [one(label) for label in labels]
        if len(set(ids)) < len(ids):
            raise ValueError("a label stands twice in it; expected each once")
        return ids

    return read


def _flag_reader(spec: TaskSpec, column: LabelColumn) -> Callable[[Any], list[int]]:
    names = list(spec.labels or ())
    order = range(len(names))
    if column.columns is not None:
        titles = _titles(column.columns)
        if set(titles) == set(names):
            order = [names.index(title) for title in titles]  # type: ignore[assignment]
        elif set(titles) & set(names) or len(titles) != len(names):
            raise InputError(
                f"Task {spec.name!r}: the labels stand in the columns {listed(titles)}; the task has the labels "
                f"{listed(names)}. Write the same names in both."
            )

    def read(flags: Sequence[Any]) -> list[int]:
        if len(flags) != len(names):
            raise ValueError(f"expected a 0 or 1 for each of {len(names)} labels: {listed(names)}")
        return sorted(place for place, flag in zip(order, flags) if _flag(flag))

    return read


_FLAGS = {"0": False, "1": True, "false": False, "true": True, "0.0": False, "1.0": True, "no": False, "yes": True}


def _titles(columns: Sequence[str]) -> list[str]:
    """Return what columns are called: without what they stand in, where that keeps them apart."""
    titles = [name.rpartition(".")[2] for name in columns]
    return titles if len(set(titles)) == len(titles) else list(columns)


def _flag(value: Any) -> bool:
    # Files of texts hold flags as texts.
    flag = _FLAGS.get(str(value).lower()) if isinstance(value, (bool, int, float, str)) else None
    if flag is None:
        raise ValueError(f"found {value!r}; expected a 0 or 1 (or false or true) for each label")
    return flag


def tag_reader(spec: TaskSpec, column: LabelColumn, hole: int) -> Callable[[Any], list[int]]:
    """Return what reads a row's tags as ids, a word without one as `hole`.

    Raises:
        InputError: As `ClassReader`.
    """
    items = [
        item
        for row in column.values
        if isinstance(row, (list, tuple))
        for item in row
        if not is_missing(item, named=True)
    ]
    one = ClassReader(spec, LabelColumn(items, column.names, column.places))

    def read(tags: Any) -> list[int]:
        if not isinstance(tags, (list, tuple)):
            raise ValueError("expected a list of tags, one per word")
        return [hole if is_missing(tag, named=True) else one(tag) for tag in tags]

    return read
