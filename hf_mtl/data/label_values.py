"""Labels that are no classes: numbers, answers with their places, the right one of a row's choices."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..modeling import InputError
from ..tasks import TaskSpec
from .label_columns import NO_CLASS, LabelColumn, inside, listed, split_path

# Where a column of choices has their keys beside their texts.
KEYS = "label"
LETTERS = "ABCDEFGHIJ"


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
            "problem_type single_label_classification, or cast the column to float."
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


def choice_keys(spec: TaskSpec, rows: Dataset, local: bool) -> list[Sequence[str]] | None:
    """Return the keys of each row's choices where they stand beside the texts: ``choices.label``, ``choices.text``."""
    source = spec.column_of("choices", local)
    if not isinstance(source, str):
        return None
    column, path = split_path(rows.column_names, source)
    if not path or path[-1] == KEYS:
        return None
    try:
        return [inside(value, [*path[:-1], KEYS]) for value in rows.with_format(None)[column]]
    except KeyError:
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
    """
    sources = spec.columns.get("choices")
    titles = [str(name) for name in sources] if isinstance(sources, (list, tuple)) else []
    letters = spec.labels or list(LETTERS)

    def keys_of(index: int) -> Sequence[str] | None:
        return None if keys is None else keys[index]

    def read(label: Any, index: int) -> int:
        if column.names is not None and isinstance(label, int) and 0 <= label < len(column.names):
            name = column.names[label]
            return _place(name, choices[index], keys_of(index), titles, letters, otherwise=label)
        if isinstance(label, str):
            return _place(label, choices[index], keys_of(index), titles, letters)
        if isinstance(label, bool) or not isinstance(label, int) or label < 0:
            unlabelled = " (the row has no label)" if label == NO_CLASS else ""
            raise ValueError(f"expected the index of the right choice, 0 or more{unlabelled}")
        return label

    return read


def _place(
    label: str,
    choices: Sequence[str],
    keys: Sequence[str] | None,
    titles: Sequence[str],
    letters: Sequence[str],
    otherwise: int | None = None,
) -> int:
    """The place of the choice that a text names."""
    if keys is not None:
        if list(keys).count(label) != 1:
            raise ValueError(f"expected one of the choices' keys: {listed(keys)}")
        return list(keys).index(label)
    places = {names.index(label) for names in (list(titles), list(letters)) if label in names}
    if label.isascii() and label.isdecimal():
        places.add(int(label))
    if list(choices).count(label) == 1:
        places.add(list(choices).index(label))
    if len(places) > 1:
        raise ValueError(
            f"it could be choice {' or '.join(map(str, sorted(places)))} (a place, a letter, or a choice itself); "
            "expected the index of the right choice, counted from 0"
        )
    if not places and otherwise is None:
        raise ValueError(f"expected the index of the right choice, or one of {listed(letters, 10)}")
    return places.pop() if places else int(otherwise or 0)
