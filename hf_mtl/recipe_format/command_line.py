"""Changes of a recipe by a command line: ``--key value``, ``--tasks a b``, ``--tasks.a.columns.text c``."""

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, get_args, get_origin

from ..modeling.configuration_multitask import current_settings
from ..modeling.errors import InputError, check_choice
from ..task_presets import PRESETS
from .other_keys import advice_for_key, advice_for_row_key
from .paths import PATH_KEYS
from .written_values import as_annotated, check_container, holds, holds_words, is_boolean, options_of
from .yaml_reading import read_yaml

TASKS = "tasks"
# Keys that cap the rows of a task, or of all.
CAPS = ("max_train_samples", "max_eval_samples")
# What takes a value away.
_NOTHING = ("null", "~", "")
_NEGATION = "no_"


@dataclass
class TypedRows:
    """A command line's changes of tasks.

    Args:
        tasks: The tasks behind ``--tasks``; none where all are meant.
        changes: Task, key, key inside a mapping (or an empty text) and texts of ``--tasks.<task>.<key> <value>``.
    """

    tasks: list[str] = field(default_factory=list)
    changes: list[tuple[str, str, str, list[str]]] = field(default_factory=list)


@dataclass
class Fields:
    """The keys of a recipe and of a task's row, with their annotations.

    Args:
        recipe: Of a recipe.
        row: Of a row.
    """

    recipe: Mapping[str, Any]
    row: Mapping[str, Any]


def split_arguments(arguments: Sequence[str]) -> tuple[TypedRows, list[tuple[str, list[str]]]]:
    """Return what a command line says of tasks, and its other keys, each with its values.

    Args:
        arguments: ``--key value``, ``--key=value``, ``--key a b``.

    Raises:
        InputError: A value without a key.
    """
    split: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            key, equals, value = argument.removeprefix("--").partition("=")
            split.append((key, [value] if equals else []))
        elif not split:
            raise InputError(f"The argument {argument!r} has no key; expected --<key> <value>.")
        else:
            split[-1][1].append(argument)
    rows, others = TypedRows(), []
    for key, values in split:
        if key == TASKS:
            if not values:
                raise InputError("--tasks: expected names of tasks, such as --tasks rte mrpc.")
            rows.tasks += [name for value in values for name in value.split(",") if name]
        elif key.startswith(f"{TASKS}."):
            name, _, rest = key.removeprefix(f"{TASKS}.").partition(".")
            row_key, _, inner = rest.partition(".")
            rows.changes.append((name, row_key, inner, values))
        else:
            others.append((key, values))
    return rows, others


def change_rows(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], typed: TypedRows, fields: Fields
) -> tuple[list[dict[str, Any]], set[str]]:
    """Return the rows that are meant, with what was typed of them, and what was typed: ``tasks.rte.weight``.

    Args:
        rows: The rows of the recipe.
        names: Their tasks' names.
        typed: What a command line says of tasks.
        fields: The keys.

    Raises:
        InputError: No such task or key, or a value that cannot be read.
    """
    for name in (*typed.tasks, *(change[0] for change in typed.changes)):
        check_choice("task", name, names)
    changed, keys = [dict(row) for row in rows], set()
    for name, key, inner, values in typed.changes:
        option = ".".join(part for part in (f"--{TASKS}", name, key, inner) if part)
        if not key or not values:
            advice = "" if key else f" To train it alone: --{TASKS} {name}."
            raise InputError(f"{option!r}: expected --{TASKS}.{name}.<key> <value>.{advice}")
        if key not in fields.row:
            raise InputError(f"{option}: unknown key {key!r}.{advice_for_row_key(key, fields.recipe, fields.row)}")
        row = changed[list(names).index(name)]
        if inner:
            before = row.get(key) or PRESETS.get(row.get("preset", ""), {}).get(key)
            row[key] = _with_inner(option, before, inner, values, fields.row[key])
        else:
            row[key] = _typed_value(option, values, fields.row[key])
            check_container(option, key, row[key], fields.row[key])
        keys.add(option.removeprefix("--"))
    return [row for row, name in zip(changed, names) if not typed.tasks or name in typed.tasks], keys


def argparse_arguments(
    others: Iterable[tuple[str, list[str]]], given: Mapping[str, Any], fields: Fields
) -> tuple[list[str], dict[str, Any]]:
    """Return keys that are not of tasks as argparse reads them, and by key the mappings, and None for ``null``.

    Args:
        others: The keys, each with its values.
        given: The recipe's values; ``--single_task_scores.rte 60`` changes one number of a mapping there.
        fields: The keys.

    Raises:
        InputError: An unknown key, or a value that cannot be read.
    """
    plain: list[str] = []
    beside: dict[str, Any] = {}
    for typed, texts in others:
        option = f"--{typed}"
        key, inner, values = _key_of(typed, texts, fields)
        annotation = fields.recipe[key]
        if inner:
            before = beside.get(key, given.get(key))
            before = json.loads(before) if isinstance(before, str) and before.startswith("{") else before
            beside[key] = _with_inner(option, before, inner, values, annotation)
        elif holds(annotation, dict) and values and values[0].startswith("{"):
            beside[key] = _typed_value(option, values, annotation)
        elif values == [_NOTHING[0]]:
            beside[key] = None
        elif len(values) == 1:
            value = as_annotated(option, values[0], annotation)
            # After `=`, so that no text and no negative number is taken for a key.
            plain.append(f"--{key}={os.path.expanduser(value) if key in PATH_KEYS else value}")
        elif values and not holds(annotation, list):
            raise InputError(f"{option}: expected one value, found {len(values)}: {' '.join(values)}.")
        else:
            plain += [f"--{key}", *values]
    mappings = [f"--{key}={json.dumps(value)}" for key, value in beside.items() if value is not None]
    return [*plain, *mappings], beside


def _key_of(typed: str, values: list[str], fields: Fields) -> tuple[str, str, list[str]]:
    """A key, the key inside its mapping, and its values; ``--no_key`` is ``--key false``."""
    key, _, inner = typed.partition(".")
    (key,) = current_settings({key.replace("-", "_"): values})
    negated = key.removeprefix(_NEGATION)
    if key not in fields.recipe and negated != key and is_boolean(fields.recipe.get(negated)):
        if values:
            raise InputError(
                f"--{typed}: expected no value, found {' '.join(values)!r}; or write --{negated} <value>."
            )
        return negated, inner, ["false"]
    if key not in fields.recipe:
        raise InputError(f"Unknown argument --{typed}.{advice_for_key(key, fields.recipe, fields.row)}")
    return key, inner, values or (["true"] if is_boolean(fields.recipe[key]) else [])


def _with_inner(option: str, before: Any, inner: str, values: Sequence[str], annotation: Any) -> dict[str, Any]:
    """A mapping with one of its values changed, or taken away by ``null``."""
    mappings = [item for item in options_of(annotation) if (get_origin(item) or item) is dict]
    outer = option.removesuffix(f".{inner}")
    if not mappings or not isinstance(before, (Mapping, NoneType)):
        raise InputError(f"{option}: {outer.removeprefix('--')!r} is no mapping; expected {outer} <value>.")
    value = _typed_value(option, values, (*get_args(mappings[0]), Any, Any)[1])
    changed = {**(before or {}), inner: value}
    return {key: item for key, item in changed.items() if key != inner or item is not None}


def _typed_value(option: str, values: Sequence[str], annotation: Any) -> Any:
    """Return what was typed for a key: YAML, but that words need no quotes.

    Args:
        option: The key, as it was typed.
        values: The texts behind it; several where a list is meant.
        annotation: What the key holds.

    Raises:
        InputError: No value or several where one is meant, or one that cannot be read.
    """
    is_list = holds(annotation, list)
    if len(values) != 1 and not (values and is_list):
        raise InputError(f"{option}: expected one value, found {len(values)}; put a value that has blanks in quotes.")
    read = [_read(option, text, annotation) for text in values]
    if len(read) > 1 or (is_list and not holds(annotation, str) and not isinstance(read[0], (list, NoneType))):
        return read
    return as_annotated(option, read[0], annotation)


def _read(option: str, text: str, annotation: Any) -> Any:
    words = holds_words(annotation)
    if text in _NOTHING:
        return None
    if words and not holds(annotation, dict) and text[0] not in "\"'[":
        return text
    return read_yaml(text, option, lambda path: words)


def settle_caps(
    rows: Sequence[Mapping[str, Any]], names: Sequence[str], caps: Mapping[str, int | None], typed: Collection[str]
) -> tuple[list[dict[str, Any]], dict[str, int | None], list[str]]:
    """Return rows and caps of which the smaller of a row's and the whole recipe's holds, and what to say of it.

    Args:
        rows: The tasks' rows.
        names: Their names.
        caps: The caps of all tasks, by name of `CAPS`.
        typed: What a command line gave, as ``max_train_samples`` and ``tasks.rte.max_train_samples``.
    """
    settled, common, lines = [dict(row) for row in rows], dict(caps), []
    for cap in CAPS:
        of_all = caps[cap]
        typed_rows = [name for name in names if f"tasks.{name}.{cap}" in typed]
        for name, row in zip(names, settled):
            of_row = row.get(cap)
            if of_all is None or of_row is None:
                continue
            if name in typed_rows:
                lines.append(f"Task {name}: --tasks.{name}.{cap} {of_row:,} holds, not the {of_all:,} of all tasks.")
            elif cap in typed:
                lines.append(f"Task {name}: --{cap} {of_all:,} holds, not the {of_row:,} in its row.")
                del row[cap]
            else:
                smaller = f"the smaller of {of_row:,} in its row and {of_all:,} for all tasks"
                lines.append(f"Task {name}: {cap} {min(of_row, of_all):,} holds, {smaller}.")
        if typed_rows and of_all is not None:
            # Written into the other rows, since a cap of all tasks would hold for those that were typed, too.
            for name, row in zip(names, settled):
                if name not in typed_rows:
                    row[cap] = of_all if row.get(cap) is None else min(row[cap], of_all)
            common[cap] = None
    return settled, common, lines
