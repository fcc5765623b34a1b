"""Relative paths of a recipe file start in its folder, those of a command line in the working directory."""

import os
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..modeling.encoder_loading import PACKAGE_PREFIX
from ..modeling.errors import InputError
from ..tasks import SPLITS

# Keys whose value is a folder or else a Hub name, and keys of folders and files.
_FOLDER_OR_NAME = ("encoder", "dataset")
PATH_KEYS = (*_FOLDER_OR_NAME, "data_dir", "data_files")


def from_recipe(values: Mapping[str, Any], folder: Path, typed: Collection[str], of: str = "") -> dict[str, Any]:
    """Return values of a recipe file, or of one of its rows, with paths that are good in the working directory.

    Args:
        values: The values; those under `PATH_KEYS` are looked at.
        folder: The recipe's folder.
        typed: The keys that a command line gave, whose paths start in the working directory.
        of: What stands before a key in `typed` and in an error, such as ``tasks.rte.``.

    Raises:
        InputError: Something of that name stands in the working directory, but not in the recipe's folder.
    """

    def moved(key: str, path: str) -> str:
        is_typed = key in typed or key.rpartition(".")[0] in typed
        return os.path.expanduser(path) if is_typed else _in_working_directory(key, path, folder)

    return _with_paths(values, moved, of)


def from_saved(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return values that `for_recipe` wrote into a folder, with paths that are good in the working directory."""

    def moved(key: str, path: str) -> str:
        # A folder begins with a dot there, so that a Hub name is none, whatever the run's folders are called.
        is_same = _is_elsewhere(path) or _may_be_name(key, path)
        return path if is_same else _marked(key, _relative(folder / path, Path()))

    return _with_paths(values, moved)


def for_recipe(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return values with paths that are good in the working directory as a recipe in a folder has to write them."""
    return _with_paths(values, lambda key, path: _seen_from(folder, key, path))


def same_place(key: str, value: Any) -> Any:
    """Return a value in a form in which equal places are equal, however they are written.

    Args:
        key: Its key, of a recipe or, as ``tasks.<name>.<key>``, of a row.
        value: The value.
    """
    name = key.rpartition(".")[2]
    return _with_paths({name: value}, lambda _, path: os.path.realpath(os.path.expanduser(path)))[name]


def _with_paths(values: Mapping[str, Any], change: Callable[[str, str], str], of: str = "") -> dict[str, Any]:
    changed = dict(values)
    for key in PATH_KEYS:
        value = values.get(key)
        if isinstance(value, str) and value:
            changed[key] = change(f"{of}{key}", value)
        elif isinstance(value, Mapping) and key == "encoder":
            changed[key] = {name: _encoder_path(one, partial(change, f"{of}{key}")) for name, one in value.items()}
        elif isinstance(value, Mapping):
            changed[key] = {
                name: change(f"{of}{key}.{name}", path) if isinstance(path, str) else path
                for name, path in value.items()
            }
    return changed


def _encoder_path(encoder: Any, change: Callable[[str], str]) -> Any:
    """One of several encoders with its path changed: a name, or a mapping that holds one."""
    if isinstance(encoder, Mapping):
        return {name: change(value) if name == "name" else value for name, value in encoder.items()}
    return change(encoder) if isinstance(encoder, str) else encoder


def _in_working_directory(key: str, path: str, folder: Path) -> str:
    if path.startswith("~"):
        return os.path.expanduser(path)
    if _is_elsewhere(path):
        return path
    if not _stands(key, path, folder):
        if _stands(key, path, Path()) and not folder.samefile(Path()):
            raise InputError(_two_places(key, path, folder))
        if _may_be_name(key, path):
            return path
    return _marked(key, _relative(folder / path, Path()))


def _seen_from(folder: Path, key: str, path: str) -> str:
    if _is_elsewhere(path) or (_may_be_name(key, path) and not Path(path).is_dir()):
        return path
    return _marked(key, _relative(Path(path), folder))


def _is_elsewhere(path: str) -> bool:
    """Return whether a path is the same from every folder."""
    return path.startswith(PACKAGE_PREFIX) or os.path.isabs(path) or "://" in path


def _is_folder_or_name(key: str) -> bool:
    return key.rpartition(".")[2] in _FOLDER_OR_NAME


def _may_be_name(key: str, path: str) -> bool:
    """Return whether a path could also be a Hub name."""
    return _is_folder_or_name(key) and not path.startswith(".") and path.count("/") <= 1


def _stands(key: str, path: str, folder: Path) -> bool:
    place = folder / path
    if key.rpartition(".")[2] == "dataset" and _may_be_name(key, path):
        # A run's folder may be called as the data set of its task; only a folder of data is taken for one.
        return any(file.stem in SPLITS for file in place.glob("*.*"))
    return place.is_dir() if _is_folder_or_name(key) else place.exists()


def _marked(key: str, path: str) -> str:
    """A path that no reader takes for a Hub name."""
    return path if path.startswith(os.pardir) or not _is_folder_or_name(key) else os.path.join(os.curdir, path)


def _relative(place: Path, folder: Path) -> str:
    # The last part stays as it is written: a link may lead to a file of another name and ending.
    parent, name = os.path.split(place)
    return os.path.relpath(os.path.join(os.path.realpath(parent), name), os.path.realpath(folder))


def _two_places(key: str, path: str, folder: Path) -> str:
    name = " If a name of the Hub is meant, start in another folder." if _may_be_name(key, path) else ""
    return (
        f"{key} is {path!r}, and a recipe's paths start in the recipe's folder: {str(folder / path)!r} is not there, "
        f"but {str(Path(path).absolute())!r} is, in the working directory. If that is meant, write "
        f"{_marked(key, _relative(Path(path), folder))!r}.{name}"
    )
