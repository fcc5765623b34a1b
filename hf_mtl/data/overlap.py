"""Training rows whose input also stands in a validation or test split, of their own task or of another."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import xxhash
from datasets import Dataset

from ..modeling.errors import InputError
from ..modeling.modalities import TABLE
from ..modeling.words import letters_of
from ..tasks import TaskSpec

# Shorter inputs ("yes", "thank you") repeat by chance.
_MIN_CHARACTERS = 12
# By default no more of a task's training rows than this are dropped without being asked for.
_MOST_DROPPED = 0.5


def input_keys(rows: Dataset, spec: TaskSpec) -> list[str]:
    """Return each row's whole input, normalised; the order of a pair's texts does not matter."""
    names = spec.problem.fields if spec.problem.inputs == "choices" else spec.input_fields
    columns = [rows[name][:] for name in names]
    return ["|".join(sorted(_parts(cells, spec.problem.inputs))) for cells in zip(*columns)]


def _parts(cells: Sequence[Any], inputs: str) -> Iterator[str]:
    """The normalised texts of a row; a list of choices is as many of them, one of words a single one."""
    for cell in cells:
        if isinstance(cell, str):
            yield letters_of(cell)
        elif isinstance(cell, Mapping):
            yield _hash_of(cell)
        elif inputs == "choices":
            yield from map(letters_of, cell)
        else:
            yield letters_of(" ".join(cell))


def _hash_of(cell: Mapping[str, Any]) -> str:
    """A hash of an image, a sound or a row of a table: of its bytes, or of its values."""
    content = cell.get("bytes") if cell.keys() == {"bytes", "path"} else None
    if content is None and cell.keys() == {"bytes", "path"} and Path(str(cell["path"])).is_file():
        content = Path(str(cell["path"])).read_bytes()
    return xxhash.xxh3_128_hexdigest(repr(sorted(cell.items())).encode() if content is None else content)


def _drop_overlap(
    train: Mapping[str, Dataset], held_out: Iterable[Mapping[str, Dataset]], specs: Mapping[str, TaskSpec]
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Return the training rows whose input stands in no held-out split of any task, and how many each task lost.

    Args:
        train: Training rows by task.
        held_out: Validation rows by task, test rows by task.
        specs: The tasks by name.
    """
    seen = {key for splits in held_out for name, rows in splits.items() for key in input_keys(rows, specs[name])}
    kept, dropped = {}, {}
    for name, rows in train.items():
        keys = input_keys(rows, specs[name])
        keep = [index for index, key in enumerate(keys) if len(key) < _MIN_CHARACTERS or key not in seen]
        dropped[name] = len(rows) - len(keep)
        kept[name] = rows.select(keep) if dropped[name] else rows
    return kept, dropped


def repeats_by_chance(spec: TaskSpec) -> bool:
    """Return whether two rows of a task may have one input without being the same row, as in a table of few values."""
    return spec.input_fields == (TABLE,)


def without_overlap(
    train: Mapping[str, Dataset],
    held_out: Mapping[str, Mapping[str, Dataset]],
    specs: Mapping[str, TaskSpec],
    said: bool | None,
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Return the rows to train on, and how many each task that was compared lost because their input stands in a
    held-out split.

    Args:
        train: Training rows by task.
        held_out: Rows by split and task.
        specs: The tasks by name.
        said: True drops such rows, False keeps them; None drops them unless they are most of a task's rows, or rows of
            a table, which repeat by chance.

    Raises:
        InputError: A task would lose all its rows, or, where nothing was said, more than half of them.
    """
    if said is False:
        return dict(train), {}
    compared = {name: rows for name, rows in train.items() if said or not repeats_by_chance(specs[name])}
    kept, dropped = _drop_overlap(compared, held_out.values(), specs)
    kept = {name: kept.get(name, rows) for name, rows in train.items()}
    most = 1.0 if said else _MOST_DROPPED
    lost = [name for name, rows in compared.items() if not kept[name] or dropped[name] > most * len(rows)]
    if not lost:
        return kept, dropped
    counts = " ".join(_loss(specs[name], train[name], dropped[name], held_out, specs) for name in lost)
    keep = "exclude_overlap: false (--exclude_overlap false; exclude_overlap=False in Python) to keep them"
    if not all(len(kept[name]) for name in lost):
        raise InputError(f"{counts} None would be left to train on. Write {keep}, or give other held-out rows.")
    raise InputError(
        f"{counts} By default such rows are dropped, but not more than half of a task's. Write exclude_overlap: true "
        f"(--exclude_overlap true; exclude_overlap=True in Python) to drop them all the same, {keep}, or give other "
        "held-out rows."
    )


def _loss(
    spec: TaskSpec,
    rows: Dataset,
    dropped: int,
    held_out: Mapping[str, Mapping[str, Dataset]],
    specs: Mapping[str, TaskSpec],
) -> str:
    """Say how many of a task's training rows stand in which held-out splits."""
    keys = [key for key in input_keys(rows, spec) if len(key) >= _MIN_CHARACTERS]
    places = []
    for split, by_task in held_out.items():
        for name, others in by_task.items():
            seen = set(input_keys(others, specs[name]))
            if count := sum(key in seen for key in keys):
                places.append(f"{count:,} in the {split} split of {name!r}")
    return (
        f"Task {spec.name!r}: {dropped:,} of its {len(rows):,} training rows have an input that stands in a held-out "
        f"split: {', '.join(places)}."
    )


def count_inputs(rows: Dataset, spec: TaskSpec) -> Counter[int]:
    """Return how often each input stands in the rows, by the hash of what is left of it; short ones are left out."""
    return Counter(hash(key) for key in input_keys(rows, spec) if len(key) >= _MIN_CHARACTERS)
