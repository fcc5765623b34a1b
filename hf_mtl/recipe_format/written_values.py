"""Values as people write them become what a field is annotated with: ``off`` a boolean, ``1e5`` a whole number."""

import math
import re
from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from ..modeling.errors import InputError

_BOOLEAN_WORDS = {
    **dict.fromkeys(("true", "yes", "on", "y", "t", "1"), True),
    **dict.fromkeys(("false", "no", "off", "n", "f", "0"), False),
}

# As YAML 1.2 writes numbers, but that zeros may stand before them: Python would take 1_000 and ٣ too.
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?", re.ASCII)

# What the mappings of a task's row look like.
_MAPPINGS = {
    "columns": "{text: COLUMN, label: COLUMN}",
    "local_columns": "{text: COLUMN, label: COLUMN}",
    "data_files": "{train: FILE, validation: FILE}",
    "splits": "{train: SPLIT, validation: SPLIT}",
}


def options_of(annotation: Any) -> tuple[Any, ...]:
    """Return what a union is made of, None left out; of any other annotation, itself."""
    options = get_args(annotation) if get_origin(annotation) in (UnionType, Union) else (annotation,)
    return tuple(option for option in options if option not in (None, NoneType))


def holds_words(annotation: Any) -> bool:
    """Return whether an annotation allows texts alone, by themselves or in a list or mapping."""
    return all(_is_word(option) for option in options_of(annotation))


def _is_word(option: Any) -> bool:
    if get_origin(option) in (list, dict):
        return holds_words(get_args(option)[-1])
    return isinstance(option, type) and issubclass(option, (str, Enum))


def holds(annotation: Any, container: type) -> bool:
    """Return whether an annotation allows a list, or a mapping."""
    return any((get_origin(option) or option) is container for option in options_of(annotation))


def is_boolean(annotation: Any) -> bool:
    """Return whether an annotation is a boolean."""
    return options_of(annotation) == (bool,)


def check_container(where: str, key: str, value: Any, annotation: Any) -> None:
    """Raise `InputError` for a single value where a list is meant, and for anything but a mapping where one is.

    Args:
        where: What the error calls the place.
        key: The key of a task's row.
        value: What was written.
        annotation: What the place holds.
    """
    if value is None or holds(annotation, str):
        return
    if holds(annotation, list) and isinstance(value, (str, int, float)):
        raise InputError(f"{where} is {value!r}; expected a list such as [{value}].")
    if holds(annotation, dict) and not isinstance(value, Mapping):
        raise InputError(f"{where} is {value!r}; expected a mapping such as {_MAPPINGS[key]}.")


def as_annotated(where: str, value: Any, annotation: Any) -> Any:
    """Return a value that was written as the boolean or number that is meant; anything else as it is.

    Args:
        where: What the error calls the place, such as `weight` of task 'rte'.
        value: What was written.
        annotation: What the place holds.

    Raises:
        InputError: Something else stands where a boolean or number is meant.
    """
    options = options_of(annotation)
    if value is None or not set(options) <= {bool, int, float}:
        return value
    if options == (bool,):
        if isinstance(value, (bool, int, str)) and str(value).lower() in _BOOLEAN_WORDS:
            return _BOOLEAN_WORDS[str(value).lower()]
        raise InputError(f"{where} is {value!r}; expected true or false.")
    number = _number(value, whole=float not in options)
    if number is None:
        expected = "a number such as 0.1 or 1e-4" if float in options else "a whole number such as 100"
        raise InputError(f"{where} is {value!r}; expected {expected}.")
    return number


def _number(value: Any, whole: bool) -> int | float | None:
    """A number, however it is written; None for what is none, or no whole one where that is expected."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    if isinstance(value, str) and not _NUMBER.fullmatch(value.strip()):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if not math.isfinite(number):
        return None
    if not whole:
        return number if isinstance(value, str) else value
    if isinstance(value, float) or not number.is_integer():
        return int(number) if number.is_integer() else None
    # Not by way of a float, which holds 15 digits; "1e5" is no text that int reads.
    return int(value) if str(value).strip().lstrip("+-").isdecimal() else int(number)
