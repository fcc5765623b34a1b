"""Input that cannot be used: the one exception that says so, and checks of names and types that raise it."""

import dataclasses
import difflib
import json
import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, get_args, get_origin


class InputError(ValueError):
    """Raised for input that cannot be used; the message says what was given, what was expected and what to type."""


class LabelError(InputError, IndexError):
    """Raised for a label that its task does not have; plain models raise `IndexError` for one past their classes."""


class CheckpointError(InputError, RuntimeError):
    """Raised for a checkpoint that cannot be read or lacks tensors; Transformers raises `RuntimeError` for most."""


def nearest(name: str, names: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(str(name), list(names), n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def check_choice(what: str, name: object, choices: Iterable[str]) -> None:
    """Raise `InputError` unless `name` is one of `choices`."""
    choices = list(choices)
    if name not in choices:
        raise InputError(
            f"Unknown {what} {name!r}; expected one of {', '.join(choices)}.{nearest(str(name), choices)}"
        )


_TYPE_NAMES = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    NoneType: "null",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
    Any: "anything",
}

# What lists and mappings hold.
_PLURALS = {str: "texts", int: "whole numbers", float: "numbers", dict: "mappings", Any: "values"}


def check_types(of: str, values: Any, names: Iterable[str]) -> None:
    """Raise `InputError` unless fields of a dataclass hold what they are annotated with, numbers being finite.

    Args:
        of: What the error says after a field's name, such as `` of task 'rte'``.
        values: The dataclass's instance.
        names: The fields.
    """
    types = {item.name: item.type for item in dataclasses.fields(values)}
    for name in names:
        value = getattr(values, name)
        if not _fits(value, types[name]):
            raise InputError(
                f"{name}={value!r}{of}; expected {_type_name(types[name])}.{_as_texts(value, types[name])}"
            )


def _as_texts(value: Any, expected: Any) -> str:
    """Return what to write for numbers in a list of texts, such as labels."""
    numbers = isinstance(value, (list, tuple)) and all(isinstance(item, (int, float, str)) for item in value)
    if not numbers or list[str] not in (expected, *get_args(expected)):
        return ""
    return f" Write texts: {json.dumps([str(item) for item in value], ensure_ascii=False)}."


def _fits(value: Any, expected: Any) -> bool:
    origin, inside = get_origin(expected), get_args(expected)
    if origin is UnionType:
        return any(_fits(value, option) for option in inside)
    if origin in (list, tuple):
        return isinstance(value, origin) and all(_fits(item, inside[0]) for item in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(_fits(item, inside[1]) for item in value.values())
    if expected in (int, float):
        kind = Integral if expected is int else Real
        return isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value)
    return expected is Any or isinstance(value, expected)


def _type_name(expected: Any) -> str:
    origin, inside = get_origin(expected), get_args(expected)
    if origin is UnionType:
        return " or ".join(dict.fromkeys(map(_type_name, inside)))
    if not inside:
        return _TYPE_NAMES[expected]
    return f"a mapping of names to {_plural(inside[1])}" if origin is dict else f"a list of {_plural(inside[0])}"


def _plural(expected: Any) -> str:
    if get_origin(expected) is list:
        return f"lists of {_plural(get_args(expected)[0])}"
    return " or ".join(map(_plural, get_args(expected))) or _PLURALS[expected]
