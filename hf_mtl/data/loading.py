"""A task's splits, from the Hub, a folder, a package or files of the user's own."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import datasets
from datasets import Dataset
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub import constants

from ..modeling.encoder_loading import PACKAGE_PREFIX, find_package_folder, hub_is_reachable
from ..modeling.errors import InputError
from ..tasks import LABEL_FIELD, SPLITS, TaskSpec
from .files import ALL_SUFFIXES, SUFFIXES, read_file
from .row_places import RowPlaces

Splits = dict[str, Dataset]
Places = dict[str, RowPlaces]


def load_splits(spec: TaskSpec, data_dir: str | None = None) -> tuple[Splits, bool, Places]:
    """Return the task's splits, whether local columns apply, and where the rows of each split stand.

    The splits are train; validation, unless rows are held out for it; test where there is one.

    Args:
        spec: The task.
        data_dir: A folder with a folder per task, read in place of the Hub.

    Raises:
        InputError: No such data set, folder, file or split, a file that cannot be read, or a split without rows.
    """
    local = False
    if spec.data_files:
        paths = {split: Path(path) for split, path in spec.data_files.items()}
    elif spec.dataset is None and data_dir is None:
        raise InputError(f"Task {spec.name!r} names no data; give `dataset:`, `data_files:` or --data_dir.")
    elif spec.dataset is not None and _is_local(spec.dataset):
        paths = _files_of_folder(_local_folder(spec.dataset), spec)
    elif data_dir is not None:
        paths, local = _files_of_folder(Path(data_dir) / (spec.local_folder or spec.name), spec), True
    else:
        paths = {}
    splits, places = _read_files(paths, spec, local) if paths else _read_hub(spec)
    for split in ("train", "validation"):
        if split not in splits and not (split == "validation" and spec.validation_share):
            advice = " Hold rows out with `validation_share: 0.1`." if split == "validation" else ""
            raise InputError(f"Task {spec.name!r} has no {split} split; found {', '.join(splits) or 'none'}.{advice}")
    for split, rows in splits.items():
        if len(rows) == 0:
            file = f": {paths[split]} holds none" if paths else ""
            raise InputError(f"The {split} split of task {spec.name!r} has no rows{file}.")
    return splits, local, places


def _read_files(paths: Mapping[str, Path], spec: TaskSpec, local: bool) -> tuple[Splits, Places]:
    columns = None
    if spec.problem.inputs == "words":
        columns = {name: spec.column_of(name, local) for name in ("tokens", LABEL_FIELD)}
    splits, places = {}, {}
    for split, path in paths.items():
        try:
            splits[split], places[split] = read_file(path, split, columns)
        except InputError as error:
            raise InputError(f"Task {spec.name!r}: {error}") from error
    return splits, places


def _is_local(name: str) -> bool:
    return name.startswith((PACKAGE_PREFIX, ".", "/", "~")) or Path(name).is_dir()


def _local_folder(name: str) -> Path:
    return find_package_folder(name) if name.startswith(PACKAGE_PREFIX) else Path(name).expanduser()


def _files_of_folder(folder: Path, spec: TaskSpec) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(
            f"Task {spec.name!r}: there is no folder {str(folder)!r}; expected files such as "
            f"{folder.name}/train.parquet. `local_folder:` in the task's row names another folder."
        )
    paths = {}
    for split in SPLITS:
        files = [folder / f"{split}{suffix}" for suffix in ALL_SUFFIXES if (folder / f"{split}{suffix}").is_file()]
        if len(files) > 1:
            raise InputError(
                f"Task {spec.name!r}: {str(folder)!r} holds {' and '.join(path.name for path in files)}; expected one "
                f"file for {split}. Say which under `data_files:`, or move the other away."
            )
        if files:
            paths[split] = files[0]
    if not paths:
        names = sorted(path.name for path in folder.iterdir())
        raise InputError(
            f"Task {spec.name!r}: {str(folder)!r} holds no train or validation file ({', '.join(SUFFIXES)}); it holds "
            f"{', '.join(names[:8]) or 'nothing'}. Files of other names go under `data_files:`."
        )
    return paths


def _read_cached(spec: TaskSpec) -> datasets.DatasetDict:
    """A data set of the local cache, without the half minute for which `load_dataset` asks for it elsewhere."""
    name = str(spec.dataset)
    kept = {"repo_id": name, "dataset_name": name.rpartition("/")[2], "version": "auto", "hash": "auto"}
    return cast(datasets.DatasetDict, Cache(config_name=spec.subset, **kept).as_dataset())


def _read_hub(spec: TaskSpec) -> tuple[Splits, Places]:
    offline = constants.HF_HUB_OFFLINE or not hub_is_reachable()
    try:
        loaded = _read_cached(spec) if offline else datasets.load_dataset(spec.dataset, spec.subset)
    except (OSError, ValueError) as error:
        raise InputError(
            f"Task {spec.name!r}: the data set {spec.dataset!r} could not be loaded"
            f"{' (the Hub is out of reach and it is not in the local cache)' if offline else f': {error}'}. "
            "To read local files in its place, type --data_dir FOLDER (a folder per task)."
        ) from error
    named = {split: spec.splits.get(split, split) for split in SPLITS}
    for split in spec.splits:
        if named[split] not in loaded:
            raise InputError(f"Task {spec.name!r}: {spec.dataset!r} has no split {named[split]!r}: {list(loaded)}.")
    # Hub test splits often carry no labels, so a test split is taken only where the task names it.
    wanted = [split for split in SPLITS if named[split] in loaded and (split != "test" or "test" in spec.splits)]
    return {split: loaded[named[split]] for split in wanted}, {split: RowPlaces(split) for split in wanted}
