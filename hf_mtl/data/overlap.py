"""Training rows whose input also stands in a validation or test split, of their own task or of another."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from datasets import Dataset

from ..modeling.words import letters_of
from ..tasks import TaskSpec

# Shorter inputs ("yes", "thank you") repeat by chance.
MIN_CHARACTERS = 12


def input_keys(rows: Dataset, spec: TaskSpec) -> list[str]:
    """Return each row's whole input, normalised; the order of a pair's texts does not matter."""
    names = ["text", "choices"] if spec.problem_type == "multiple_choice" else spec.input_fields
    columns = [rows[name][:] for name in names]
    return ["|".join(sorted(_parts(cells, spec.problem_type))) for cells in zip(*columns)]


def _parts(cells: Sequence[Any], problem_type: str) -> Iterator[str]:
    """The normalised texts of a row; a list of choices is as many of them, one of words a single one."""
    for cell in cells:
        if isinstance(cell, str):
            yield letters_of(cell)
        elif problem_type == "multiple_choice":
            yield from map(letters_of, cell)
        else:
            yield letters_of(" ".join(cell))


def drop_overlap(
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
        keep = [index for index, key in enumerate(keys) if len(key) < MIN_CHARACTERS or key not in seen]
        dropped[name] = len(rows) - len(keep)
        kept[name] = rows.select(keep) if dropped[name] else rows
    return kept, dropped


def count_inputs(rows: Dataset, spec: TaskSpec) -> Counter[int]:
    """Return how often each input stands in the rows, by the hash of what is left of it; short ones are left out."""
    return Counter(hash(key) for key in input_keys(rows, spec) if len(key) >= MIN_CHARACTERS)
