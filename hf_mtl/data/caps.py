"""A part of the rows where a cap is set: the same rows for all tasks of a source."""

from collections.abc import Mapping, Sequence

import numpy as np
from datasets import Dataset

from ..modeling.errors import InputError
from ..tasks import ROW_FIELD, TaskSpec, tasks_by_source

# Held-out rows are drawn with this, whatever the run's seed.
EVAL_SEED = 0


def smaller_cap(*caps: int | None) -> int | None:
    """Return the smallest of the caps that are set."""
    return min((cap for cap in caps if cap is not None), default=None)


def drawn_rows(
    rows: Mapping[str, Dataset], caps: Mapping[str, int | None], specs: Sequence[TaskSpec], seed: int, name: str
) -> dict[str, Dataset]:
    """Return the rows of each task that its cap leaves, drawn at random, in their order.

    A source's rows are shuffled once, and each of its tasks has its labels among the first of them, as many as its
    own cap says. So tasks with one cap have the same rows, and a task with the smaller cap has rows that the other
    one has, too.

    Args:
        rows: Rows by task.
        caps: Caps by task.
        specs: The tasks.
        seed: Says which rows.
        name: The cap, for an error.

    Raises:
        InputError: A task has no label in the rows that were drawn.
    """
    by_name = {spec.name: spec for spec in specs}
    drawn = dict(rows)
    for names in tasks_by_source(by_name[task] for task in rows).values():
        if all(caps[task] is None for task in names):
            continue
        places = {task: _places(rows[task]) for task in names}
        source = np.unique(np.concatenate(list(places.values())))
        order = np.random.default_rng(seed).permutation(len(source))
        for task in names:
            cap = caps[task]
            if cap is None or cap >= len(source):
                continue
            index = np.flatnonzero(np.isin(places[task], source[order[:cap]]))
            if len(index) == 0:
                raise InputError(
                    f"Task {task!r} has no label in the {cap:,} rows that {name} leaves of the {len(source):,} of its "
                    f"source {by_name[task].source_name!r}; expected at least one. Write a larger {name}."
                )
            drawn[task] = rows[task].select(index)
    return drawn


def _places(rows: Dataset) -> np.ndarray:
    """The place of each row in its source."""
    return np.asarray(rows[ROW_FIELD][:]) if ROW_FIELD in rows.column_names else np.arange(len(rows))
