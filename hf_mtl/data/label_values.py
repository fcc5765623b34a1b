"""Labels that are no classes: numbers, answers with their places, the right one of a row's choices."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..modeling.errors import InputError
from ..modeling.problem_types import problem_type_with
from ..tasks import TaskSpec
from .label_columns import NO_CLASS, NO_LABEL, LabelColumn, inside, is_missing, listed, split_path, whole_number

# Where a column of choices has their keys beside their texts.
_KEYS = "label"
_LETTERS = "ABCDEFGHIJ"


def number_reader(column: LabelColumn) -> Callable[[Any], float]:
    """Return what reads a number; ids of a ClassLabel column whose names are numbers are these.

    Raises:
        InputError: A ClassLabel column with other names.
    """
    if column.names is None:
        return _number
    try:
        numbers = [_number(name) for name in column.names]
    except ValueError:
        raise InputError(
            f"The {column.places.split} labels are the classes {listed(column.names)}, which are no numbers. Take "
            f"problem_type {problem_type_with('class')}, or cast the column to float."
        ) from None

    def read(label: Any) -> float:
        if not isinstance(label, int) or not 0 <= label < len(numbers):
            raise ValueError(f"expected an id from 0 to {len(numbers) - 1}")
        return numbers[label]

    return read


def _number(label: Any) -> float:
    # Files of texts hold numbers as texts.
    if isinstance(label, str):
        try:
            label = float(label) if "_" not in label else None
        except ValueError:
            label = None
    if isinstance(label, bool) or not isinstance(label, (int, float)) or not math.isfinite(label):
        raise ValueError("expected a finite number, such as 2.5")
    if label == NO_LABEL:
        raise ValueError(f"{NO_LABEL} stands for no label; leave the row out, or write the number on another scale")
    return float(label)


def read_answers(label: Any) -> dict[str, list[Any]]:
    """Return accepted answers as ``{"text": [...], "answer_start": [...]}``, both empty where there is none.

    Raises:
        ValueError: They are of another form.
    """
    if isinstance(label, (list, tuple)) and all(isinstance(answer, Mapping) for answer in label):
        label = {key: [answer.get(key) for answer in label] for key in ("text", "answer_start")}
    if not isinstance(label, Mapping) or not {"text", "answer_start"} <= label.keys():
        raise ValueError('expected answers such as {"text": ["Bob"], "answer_start": [17]}')
    texts, starts = (
        list(value) if isinstance(value, (list, tuple)) else [value]
        for value in (label["text"], label["answer_start"])
    )
    right = len(texts) == len(starts) and all(isinstance(text, str) and text for text in texts)
    if not right or not all(isinstance(start, int) and start >= 0 for start in starts):
        raise ValueError('expected as many starts (whole numbers) as texts: {"text": ["Bob"], "answer_start": [17]}')
    return {"text": texts, "answer_start": starts}


def choice_keys(spec: TaskSpec, rows: Dataset, local: bool) -> list[list[str]] | None:
    """Return the keys of each row's choices where they stand beside the texts: ``choices.label``, ``choices.text``."""
    source = spec.column_of("choices", local)
    if not isinstance(source, str):
        return None
    column, path = split_path(rows.column_names, source)
    if not path or path[-1] == _KEYS:
        return None
    try:
        keys = [inside(value, [*path[:-1], _KEYS]) for value in rows.with_format(None)[column]]
        return [[str(whole_number(key)) for key in row] for row in keys]
    except (KeyError, TypeError):
        return None


def choice_reader(
    spec: TaskSpec, column: LabelColumn, choices: Sequence[Sequence[str]], keys: Sequence[Sequence[str]] | None
) -> Callable[[Any, int], int]:
    """Return what reads which of a row's choices is right, given the label and the row's index.

    A label is the choice's key where choices have keys, else its place from 0, its letter from A, its column, or the
    choice itself.

    Args:
        spec: The task.
        column: The labels.
        choices: The choices of each row.
        keys: Their keys, where they have any.

    Raises:
        InputError: Places that are counted from 1, or could be.
    """
    sources = spec.columns.get("choices")
    titles = [str(name) for name in sources] if isinstance(sources, (list, tuple)) else []
    names = [titles, list(spec.labels or _LETTERS)]
    if keys is None and column.names is None:
        _refuse_places_from_one(spec, column, choices, titles)

    def read(label: Any, index: int) -> int:
        label = whole_number(label)
        if column.names is not None and isinstance(label, int) and 0 <= label < len(column.names):
            return _place_of_class(label, column.names, choices[index], None if keys is None else keys[index], names)
        if keys is not None and (isinstance(label, str) or _are_numbered(keys[index])) and not is_missing(label):
            return _place_of_key(str(label), keys[index])
        if isinstance(label, str):
            return _place(label, choices[index], names)
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            unlabelled = " (the row has no label)" if label == NO_CLASS else ""
            raise ValueError(f"expected the index of the right choice, 0 or more{unlabelled}")
        return label

    return read


def _refuse_places_from_one(
    spec: TaskSpec, column: LabelColumn, choices: Sequence[Sequence[str]], titles: Sequence[str]
) -> None:
    """Refuse digits in texts that count choices from 1, or may do so where the columns of choices are numbered so."""
    digits = [
        (int(label), len(row))
        for label, row in zip(column.values, choices)
        if isinstance(label, str) and label.isdecimal() and label not in row
    ]
    if not digits or any(place == 0 for place, _ in digits):
        return
    numbered = bool(titles) and [title[-1:] for title in titles] == [str(place + 1) for place in range(len(titles))]
    if numbered or any(place == count for place, count in digits):
        raise InputError(
            f"Task {spec.name!r}: the {column.places.split} labels, such as {str(digits[0][0])!r}, seem to count the "
            "choices from 1 (no row has a '0'). Write places from 0 as whole numbers, or the choices' columns or "
            "letters."
        )


def _are_numbered(keys: Sequence[str]) -> bool:
    return all(key.isdecimal() for key in keys)


def _place_of_class(
    label: int, classes: Sequence[str], choices: Sequence[str], keys: Sequence[str] | None, names: list[list[str]]
) -> int:
    """The place of the choice that an id of ClassLabel stands for."""
    name = classes[label]
    if keys is not None:
        return _place_of_key(name, keys)
    numbered = [str(index) for index in range(len(classes))], [str(index + 1) for index in range(len(classes))]
    if list(classes) in numbered:
        # Names that only number the ids.
        return label
    if name.isdecimal():
        raise ValueError(f"its class {name!r} is no place: expected the classes 0, 1, 2 or names of choices")
    places = {options.index(name) for options in names if name in options}
    if list(choices).count(name) == 1:
        places.add(list(choices).index(name))
    return _only(places, label)


def _place_of_key(label: str, keys: Sequence[str]) -> int:
    if list(keys).count(label) != 1:
        raise ValueError(f"expected one of the choices' keys: {listed(keys)}")
    return list(keys).index(label)


def _place(label: str, choices: Sequence[str], names: list[list[str]]) -> int:
    """The place of the choice that a text names."""
    places = {options.index(label) for options in names if label in options}
    if label.isascii() and label.isdecimal():
        places.add(int(label))
    if list(choices).count(label) == 1:
        places.add(list(choices).index(label))
    if not places:
        raise ValueError(f"expected the index of the right choice, or one of {listed(names[1], 10)}")
    # What lies beyond the choices is not meant where something else is.
    return _only({place for place in places if place < len(choices)} or places)


def _only(places: set[int], otherwise: int = 0) -> int:
    if len(places) > 1:
        raise ValueError(
            f"it could be choice {' or '.join(map(str, sorted(places)))} (a place, a letter, or a choice itself); "
            "expected the index of the right choice, counted from 0"
        )
    return places.pop() if places else otherwise
