"""Training rows whose input also stands in a validation or test split, of their own task or of another."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from datasets import Dataset

from ..tasks import TaskSpec

# Shorter inputs ("yes", "thank you") repeat by chance.
MIN_CHARACTERS = 12

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")


def normalised(text: str) -> str:
    """Return the letters and digits of a text, lower case."""
    return _NOT_ALPHANUMERIC.sub("", text.lower())


def input_key(row: Mapping[str, Any], spec: TaskSpec) -> str:
    """Return a row's whole input, normalised; the order of a pair's texts does not matter."""
    if spec.problem_type == "multiple_choice":
        parts = [row["text"], *row["choices"]]
    else:
        parts = [" ".join(row[name]) if name == "tokens" else row[name] for name in spec.input_fields]
    return "|".join(sorted(normalised(part) for part in parts))


def drop_overlap(
    train: Mapping[str, Dataset], held_out: Iterable[Mapping[str, Dataset]], specs: Mapping[str, TaskSpec]
) -> tuple[dict[str, Dataset], dict[str, int]]:
    """Return the training rows whose input stands in no held-out split of any task, and how many each task lost.

    Args:
        train: Training rows by task.
        held_out: Validation rows by task, test rows by task.
        specs: The tasks by name.
    """
    seen = {input_key(row, specs[name]) for splits in held_out for name, rows in splits.items() for row in rows}
    kept, dropped = {}, {}
    for name, rows in train.items():
        keys = [input_key(row, specs[name]) for row in rows]
        keep = [index for index, key in enumerate(keys) if len(key) < MIN_CHARACTERS or key not in seen]
        dropped[name] = len(rows) - len(keep)
        kept[name] = rows.select(keep) if dropped[name] else rows
    return kept, dropped
