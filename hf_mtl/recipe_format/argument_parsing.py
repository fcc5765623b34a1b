"""Values of a recipe and of a command line become dataclasses, by way of argparse."""

import argparse
import json
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, NoReturn, cast

from transformers import HfArgumentParser

from ..modeling.errors import InputError, check_choice
from ..modeling.systems import SYSTEMS


class _Parser(HfArgumentParser):
    """Raises what argparse would print together with a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def parse_arguments(
    classes: Sequence[type], given: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return dataclasses of a file's values and a command line's, and the values that the command line gave.

    Args:
        classes: The dataclasses.
        given: The file's values.
        arguments: The command line.

    Raises:
        InputError: A value that cannot be used.
    """
    parser = _Parser(cast(Any, classes), allow_abbrev=False, add_help=False)
    # Given as text, so that argparse checks a file's values as it checks the command line's.
    parser.set_defaults(**{key: _as_text(value) for key, value in given.items() if value is not None})
    try:
        parsed = parser.parse_args_into_dataclasses(args=list(arguments), look_for_args_file=False)
    except (ValueError, TypeError, argparse.ArgumentError, ImportError) as error:
        raise InputError(str(error)) from error
    return tuple(parsed), _given_values(parser, arguments)


def _given_values(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """The values that stand on a command line, defaults left out."""
    untouched = object()
    before = argparse.Namespace(**{action.dest: untouched for action in parser._actions})
    values = vars(parser.parse_args(list(arguments), before))
    return {
        key: value.value if isinstance(value, Enum) else value
        for key, value in values.items()
        if value is not untouched
    }


def _as_text(value: Any) -> Any:
    if isinstance(value, list):
        return value
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def with_system(given: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Return a file's keys over its own system, and under the one that a command line names."""
    parser = _Parser(cast(Any, ()), allow_abbrev=False, add_help=False)
    parser.add_argument("--system")
    typed = parser.parse_known_args(list(arguments))[0].system
    for system in (given.get("system"), typed):
        if system is not None:
            check_choice("system", system, SYSTEMS)
    in_file, on_command_line = (SYSTEMS[name].settings if name else {} for name in (given.get("system"), typed))
    return {**in_file, **given, **on_command_line}


def settings_beside(given: Mapping[str, Any], system: str | None) -> dict[str, Any]:
    """Return a file's keys without those that a system which was typed says in their place."""
    replaced = SYSTEMS[system].settings if system else {}
    return {key: value for key, value in given.items() if key not in replaced}
