"""Rows without labels: which they are, and what is left of them to answer."""

from typing import Any

from datasets import Dataset

from ..modeling.errors import InputError
from ..tasks import LABEL_FIELD, TaskSpec
from .canonical import canonical_inputs, canonical_splits
from .label_columns import is_missing, plain_column, split_path
from .label_kinds import label_kind


def _count_labelled(spec: TaskSpec, rows: Dataset) -> int:
    """Return how many rows have a label: not None, NaN, -100 or a list of such, nor -1 in the place of a class.

    A number of -1 or an empty text is a label unless the whole column holds nothing else.
    """
    columns = spec.column_of(LABEL_FIELD, local=False)
    if isinstance(columns, (list, tuple)):
        return len(rows) * all(str(name).partition(".")[0] in rows.column_names for name in columns)
    column, _ = split_path(rows.column_names, str(columns))
    if column not in rows.column_names:
        return 0
    labels = plain_column(spec, rows, str(columns), "test")
    if all(label == "" or _is_hole(label, hides=True) for label in labels):
        return 0
    hides = label_kind(spec).hides
    return sum(not _is_hole(label, hides) for label in labels)


def _is_hole(label: Any, hides: bool) -> bool:
    if isinstance(label, (list, tuple)):
        return bool(label) and all(_is_hole(item, hides) for item in label)
    return is_missing(label, named=hides)


def rows_to_score(spec: TaskSpec, rows: Dataset) -> Dataset:
    """Return canonical rows with labels.

    Raises:
        InputError: No row has a label, or the rows cannot be used.
    """
    if len(rows) and not _count_labelled(spec, rows):
        raise InputError(
            f"Task {spec.name!r}: none of the {len(rows)} rows has a label (column "
            f"{spec.column_of(LABEL_FIELD, local=False)!r}), so there is nothing to score. To answer them, write "
            f"trainer.predict({{{spec.name!r}: data}}); to score, give rows with labels."
        )
    return canonical_splits(spec, {"validation": rows}, local=False)["validation"]


def rows_to_answer(spec: TaskSpec, rows: Dataset) -> tuple[Dataset, int]:
    """Return canonical rows, and how many have no label; if there are any, no row keeps its own.

    A text that is its own label is answered as it stands, whatever masks are in it. Of a task that shares its source,
    rows without a label belong to other tasks: they are left out unless all are.
    """
    labelled = _count_labelled(spec, rows) if spec.problem.has_label_column else 0
    if labelled == len(rows) or (labelled and spec.source is not None):
        return canonical_splits(spec, {"test": rows}, local=False)["test"], 0
    return canonical_inputs(spec, rows, "test"), len(rows) - labelled
