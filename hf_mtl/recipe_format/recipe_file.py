"""A recipe file: found, read, its keys known and its values what their keys hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..modeling.configuration_multitask import current_settings
from ..modeling.encoder_loading import PACKAGE_PREFIX, find_package_folder
from ..modeling.errors import InputError
from ..modeling.problem_types import PROBLEM_TYPES, problem_type_with
from .command_line import TASKS, Fields
from .other_keys import advice_for_key, advice_for_row_key
from .written_values import as_annotated, check_container, holds_words
from .yaml_reading import read_yaml

_EXAMPLE_ROW = f"`- name: rte` and, below it, `problem_type: {problem_type_with('class')}`"


@dataclass
class RecipeFile:
    """The contents of a recipe file.

    Args:
        name: The file as it was given.
        folder: Its folder, in which its relative paths start.
        values: Its keys, `tasks` left out.
        rows: Its tasks' rows.
    """

    name: str
    folder: Path
    values: dict[str, Any]
    rows: list[dict[str, Any]]


def read_recipe_file(path: str | Path, fields: Fields) -> RecipeFile:
    """Read a recipe file.

    Args:
        path: A YAML file, or ``package:<module>/<file>``.
        fields: The keys.

    Raises:
        InputError: No such file, no valid YAML, or a value of the wrong kind.
    """
    name = str(path)
    if name.startswith(PACKAGE_PREFIX):
        package_folder, _, file_name = name.rpartition("/")
        path = find_package_folder(package_folder) / file_name
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no recipe {name!r}; expected a YAML file such as recipes/support_desk/train.yaml.")
    try:
        # A mark at the beginning, which Windows programs write, is no part of the text.
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{name}: no UTF-8 text: byte {error.start + 1} is {error.object[error.start]:#04x}. Save it as UTF-8."
        ) from error
    values = read_yaml(text, name, lambda keys: _is_words(keys, fields))
    if (place := _first_blank(values)) is not None:
        raise InputError(f"{name}: {place} is ???; write what is meant (the comment beside it says what was seen).")
    if not isinstance(values, Mapping):
        content = "an empty file" if values is None else type(values).__name__
        raise InputError(f"{name}: expected `key: value` lines such as `encoder: FOLDER`; found {content}.")
    rows = values.pop(TASKS, None) if isinstance(values, dict) else None
    if not isinstance(rows, list):
        raise InputError(
            f"{name}: expected a list of task rows under `tasks:`, such as {_EXAMPLE_ROW}; found {rows!r}."
        )
    values = current_settings(values)
    return RecipeFile(
        name,
        path.parent,
        {key: as_annotated(f"{name}: {key}", value, fields.recipe.get(key, Any)) for key, value in values.items()},
        [_row(name, row, fields) for row in rows],
    )


def _row(name: str, row: Any, fields: Fields) -> dict[str, Any]:
    if not isinstance(row, Mapping):
        raise InputError(f"{name}: a row under `tasks:` must be a mapping such as {_EXAMPLE_ROW}; found {row!r}.")
    values = {}
    for key, value in row.items():
        annotation, where = fields.row.get(key, Any), f"{name}: {key} of task {name_of_row(row)!r}"
        check_container(where, key, value, annotation)
        values[key] = as_annotated(where, value, annotation)
    return values


def _is_words(keys: tuple[str, ...], fields: Fields) -> bool:
    if keys[:1] == (TASKS,):
        return len(keys) == 2 and keys[1] in fields.row and holds_words(fields.row[keys[1]])
    return len(keys) == 1 and keys[0] in fields.recipe and holds_words(fields.recipe[keys[0]])


def check_keys(file: RecipeFile, fields: Fields) -> None:
    """Raise `InputError` for an unknown key, saying what to write for it, and for a row without problem type."""
    for key in file.values:
        if key not in fields.recipe:
            raise InputError(f"{file.name}: unknown key {key!r}.{advice_for_key(key, fields.recipe, fields.row)}")
    for row in file.rows:
        task = name_of_row(row)
        for key in row:
            if key not in fields.row:
                advice = advice_for_row_key(key, fields.recipe, fields.row)
                raise InputError(f"{file.name}: unknown key {key!r} in task {task!r}.{advice}")
        if row.get("problem_type") is None and row.get("preset") is None:
            raise InputError(
                f"{file.name}: task {task!r} needs 'problem_type', which a recipe does not read off the data; write "
                f"in its row `problem_type: ` and one of {', '.join(PROBLEM_TYPES)}."
            )


def name_of_row(row: Mapping[str, Any]) -> str:
    """Return the name of a row's task: its own, or its preset's."""
    return str(row.get("name") or str(row.get("preset", "?")).rpartition("/")[2])


def _first_blank(value: Any, place: str = "") -> str | None:
    """Return where a value is ???, which `hf-mtl init` writes for somebody to fill in; None if none is."""
    if value == "???":
        return place
    items: Any = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        inside = item.get("name", key) if isinstance(value, list) and isinstance(item, Mapping) else key
        if (blank := _first_blank(item, f"{place}.{inside}" if place else str(inside))) is not None:
            return blank
    return None
