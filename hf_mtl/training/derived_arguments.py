"""Arguments that follow from others: where they are not given, or for the time of a run."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ..metrics import METRICS
from ..modeling.errors import InputError

# How much faster than the encoder everything behind it learns by default.
_PARTS_RATE = 10


class Adjusted:
    """A value that a run follows from others, in the place of the one that was given.

    Attributes:
        given: The value that was given; copies of the arguments, as `dataclasses.replace` makes them, begin with it.
    """

    given: Any


class AdjustedCount(Adjusted, int):
    """A whole number, or whether something holds."""


class AdjustedText(Adjusted, str):
    """A name."""


class _DerivedRate(float):
    """A number that follows from other arguments; given back, as `dataclasses.replace` does, it is not given."""


class _DerivedCount(int):
    """The same of a whole number."""


def _lower_is_better(metric: str | None) -> bool:
    """Return whether less of a metric is better: of losses and of errors such as ``stars_rmse``."""
    worse = ["loss", *(name for name, kind in METRICS.items() if not kind.higher_is_better)]
    return any(str(metric) == name or str(metric).endswith(f"_{name}") for name in worse)


def _parts_rate(args: Any) -> Any:
    return _DerivedRate(_PARTS_RATE * args.learning_rate)


def _accumulation(args: Any) -> Any:
    steps = args._accumulation()
    return None if steps is None else _DerivedCount(steps)


def _greater_is_better(args: Any) -> Any:
    return None if args.metric_for_best_model is None else not _lower_is_better(args.metric_for_best_model)


# Arguments that follow from others where they are not given, or always: read anew each time, since those may change.
DERIVED: dict[str, Callable[[Any], Any]] = {
    "parts_learning_rate": _parts_rate,
    "gradient_accumulation_steps": _accumulation,
    "greater_is_better": _greater_is_better,
}


def following(name: str, derive: Callable[[Any], Any], default: Any) -> property:
    """Return the property of an argument that follows from others.

    Args:
        name: The argument's name.
        derive: What it follows from; see `DERIVED`.
        default: Its value where it is not given.
    """

    def read(args: Any) -> Any:
        value = vars(args).get(name, default)
        derived = derive(args) if value == default else None
        return value if derived is None else derived

    def write(args: Any, value: Any) -> None:
        given = value.given if isinstance(value, Adjusted) else value
        vars(args)[name] = default if isinstance(given, (_DerivedRate, _DerivedCount)) else given

    return property(read, write)


def json_mapping(name: str, given: Any, expected: str) -> dict[str, Any] | None:
    """Return a mapping, which a command line gives as JSON.

    Args:
        name: The argument's name.
        given: The mapping, its JSON, or None.
        expected: What it should be, for the message.

    Raises:
        InputError: Something else.
    """
    if given is None:
        return None
    try:
        mapping = json.loads(given) if isinstance(given, str) else given
    except json.JSONDecodeError as error:
        raise InputError(f"{name}={given!r} is no valid JSON: {error}") from error
    if not isinstance(mapping, Mapping):
        raise InputError(f"{name}={given!r}; expected {expected}.")
    return dict(mapping)
