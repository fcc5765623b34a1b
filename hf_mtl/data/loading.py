"""A task's splits, from the Hub, a folder, a package or files of the user's own."""

import json
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from huggingface_hub import constants

from ..modeling import InputError
from ..modeling.encoders import PACKAGE_PREFIX, find_package_folder, hub_is_reachable
from ..tasks import SPLITS, TaskSpec

SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv")


def load_splits(spec: TaskSpec, data_dir: str | None = None) -> tuple[dict[str, Dataset], bool]:
    """Return the task's splits, and whether local columns apply: train; validation, unless rows are held out for it;
    test where there is one.

    Args:
        spec: The task.
        data_dir: A folder with a folder a task, read in place of the Hub.

    Raises:
        InputError: No such data set, folder, file or split, or a split without rows.
    """
    if spec.data_files:
        found, local = {split: read_file(Path(path), spec.name) for split, path in spec.data_files.items()}, False
    elif spec.dataset is None and data_dir is None:
        raise InputError(f"Task {spec.name!r} names no data; give `dataset:`, `data_files:` or --data_dir.")
    elif spec.dataset is not None and _is_local(spec.dataset):
        found, local = _read_folder(_local_folder(spec.dataset), spec), False
    elif data_dir is not None:
        found, local = _read_folder(Path(data_dir) / (spec.local_folder or spec.name), spec), True
    else:
        found, local = _read_hub(spec), False
    for split in ("train", "validation"):
        if split not in found and not (split == "validation" and spec.validation_share):
            advice = " Hold rows out with `validation_share: 0.1`." if split == "validation" else ""
            raise InputError(f"Task {spec.name!r} has no {split} split; found {', '.join(found) or 'none'}.{advice}")
    for split, rows in found.items():
        if len(rows) == 0:
            raise InputError(f"The {split} split of task {spec.name!r} has no rows.")
    return found, local


def _is_local(name: str) -> bool:
    return name.startswith((PACKAGE_PREFIX, ".", "/", "~")) or Path(name).is_dir()


def _local_folder(name: str) -> Path:
    return find_package_folder(name) if name.startswith(PACKAGE_PREFIX) else Path(name).expanduser()


def _read_folder(folder: Path, spec: TaskSpec) -> dict[str, Dataset]:
    if not folder.is_dir():
        raise InputError(
            f"Task {spec.name!r}: there is no folder {str(folder)!r}; expected files such as "
            f"{folder.name}/train.parquet. `local_folder:` in the task's row names another folder."
        )
    found = {}
    for split in SPLITS:
        files = [folder / f"{split}{suffix}" for suffix in SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if files:
            found[split] = read_file(files[0], spec.name)
    if not found:
        raise InputError(
            f"Task {spec.name!r}: {str(folder)!r} holds no train or validation file ({', '.join(SUFFIXES)})."
        )
    return found


def read_file(path: Path, task: str) -> Dataset:
    """Read a parquet, json, jsonl, csv or tsv file."""
    if not path.is_file():
        raise InputError(f"Task {task!r}: there is no file {str(path)!r}.")
    try:
        if path.suffix == ".parquet":
            return Dataset.from_parquet(str(path))
        if path.suffix in (".json", ".jsonl"):
            return Dataset.from_list(read_json_lines(path))
        if path.suffix in (".csv", ".tsv"):
            return Dataset.from_csv(str(path), sep="\t" if path.suffix == ".tsv" else ",")
    except (ValueError, TypeError, AttributeError, StopIteration, datasets.exceptions.DatasetGenerationError) as error:
        raise InputError(f"Task {task!r}: {str(path)!r} cannot be read: {error}") from error
    raise InputError(f"Task {task!r}: {str(path)!r} has an unknown ending; expected one of {', '.join(SUFFIXES)}.")


def read_json_lines(path: Path) -> list[Any]:
    """Read one JSON value a line; a line that is none is a `ValueError` naming it."""
    values = []
    # str.splitlines would also end a line at separators that may stand inside a text.
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"line {number} is no valid JSON: {error}") from error
    return values


def _read_hub(spec: TaskSpec) -> dict[str, Dataset]:
    offline = constants.HF_HUB_OFFLINE or not hub_is_reachable()
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE or offline
    try:
        loaded = datasets.load_dataset(spec.dataset, spec.subset)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Task {spec.name!r}: the data set {spec.dataset!r} could not be loaded"
            f"{' (the Hub is out of reach and it is not in the local cache)' if offline else f': {error}'}. "
            "To read local files in its place, type --data_dir FOLDER (a folder a task)."
        ) from error
    named = {split: spec.splits.get(split, split) for split in SPLITS}
    for split in spec.splits:
        if named[split] not in loaded:
            raise InputError(f"Task {spec.name!r}: {spec.dataset!r} has no split {named[split]!r}: {list(loaded)}.")
    # Hub test splits often carry no labels, so a test split is taken only where the task names it.
    wanted = [split for split in SPLITS if named[split] in loaded and (split != "test" or "test" in spec.splits)]
    return {split: loaded[named[split]] for split in wanted}
