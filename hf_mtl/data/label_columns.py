"""A split's labels as its data set holds them: values, the names that ids have there, and what is no label."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import ClassLabel, LargeList, List

from ..modeling.errors import InputError, nearest
from ..tasks import LABEL_FIELD, TaskSpec
from .column_hints import choices_help, tokenised_help
from .row_places import RowPlaces

# What a column of labels holds, beside None and NaN, where a row has no label.
NO_LABEL = -100
# What a ClassLabel column and the tags of words hold there too.
NO_CLASS = -1


@dataclass(frozen=True)
class LabelColumn:
    """The labels of one split.

    Args:
        values: A label per row, as it stands in the data set.
        names: The names of the ids where the column is of ClassLabel.
        places: Names the rows in messages.
        columns: The data set's columns where a row's label is spread over several.
        numbers: The rows' numbers in the split, where some rows were left out.
    """

    values: Sequence[Any]
    names: Sequence[str] | None
    places: RowPlaces
    columns: Sequence[str] | None = None
    numbers: Sequence[int] | None = None

    def name_row(self, index: int) -> str:
        """Return what a message calls the row of a value."""
        return self.places.name(index if self.numbers is None else self.numbers[index])


def names_of_feature(features: Mapping[str, Any], source: str) -> list[str] | None:
    """Return the class names of a column, or of what is inside one; None where ids have no names there.

    Args:
        features: The data set's features.
        source: The column, with a dot before each key inside it.
    """
    column, path = split_path(features, source)
    feature = _inner(features.get(column))
    for key in path:
        feature = _inner(feature.get(key)) if isinstance(feature, Mapping) else None
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _inner(feature: Any) -> Any:
    while isinstance(feature, (List, LargeList)) or (isinstance(feature, list) and len(feature) == 1):
        feature = feature[0] if isinstance(feature, list) else feature.feature
    return feature


def split_path(columns: Mapping[str, Any] | Sequence[str], source: str) -> tuple[str, list[str]]:
    """Return the column that is meant and the keys inside it; a column whose own name has dots is taken whole."""
    if source in columns:
        return source, []
    column, *path = source.split(".")
    return column, path


def inside(value: Any, path: Sequence[str]) -> Any:
    """Return what stands inside a value along keys; of a list, that of each item.

    Raises:
        KeyError: There is nothing under a key.
    """
    if not path or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [inside(item, path) for item in value]
    if not isinstance(value, Mapping):
        raise KeyError(path[0])
    return inside(value[path[0]], path[1:])


def plain_column(spec: TaskSpec, rows: Any, source: str, split: str) -> list[Any]:
    """Return a column's values, or what is inside them.

    Raises:
        InputError: There is no such column, or nothing inside it.
    """
    column, path = split_path(rows.column_names, source)
    if column not in rows.column_names:
        features = rows.features or dict.fromkeys(rows.column_names)
        advice = tokenised_help(features, spec.column_of(LABEL_FIELD, local=False)) or (
            " Name them under `columns:` in the task's row." + choices_of_task_help(spec, rows)
        )
        raise InputError(
            f"Task {spec.name!r}: the {split} split has no column {column!r}.{nearest(column, rows.column_names)} "
            f"Its columns: {', '.join(rows.column_names)}.{advice}"
        )
    values = rows.with_format(None)[column][:]
    try:
        return [inside(value, path) for value in values] if path else values
    except KeyError:
        raise InputError(
            f"Task {spec.name!r}: column {column!r} of the {split} split holds no {'.'.join(path)!r}."
        ) from None


def choices_of_task_help(spec: TaskSpec, rows: Any) -> str:
    """Return the task to write where a multiple-choice task's choices stand in numbered columns; else nothing."""
    if spec.problem.inputs != "choices" or rows.features is None:
        return ""
    columns: dict[str, Any] = {field: spec.columns[field] for field in ("text", "label") if field in spec.columns}
    if "label" in rows.column_names:
        columns.setdefault("label", "label")
    return choices_help(rows.features, spec.name, columns)


def is_missing(label: Any, named: bool = False) -> bool:
    """Return whether a row has no label in a column with holes.

    Args:
        label: The row's value.
        named: Whether the column is of ClassLabel, where -1 is no label.
    """
    if isinstance(label, (list, tuple)):
        return len(label) > 0 and all(item is None or (isinstance(item, float) and math.isnan(item)) for item in label)
    if label is None or (isinstance(label, float) and math.isnan(label)):
        return True
    return not isinstance(label, bool) and (label == NO_LABEL or (named and label == NO_CLASS))


def whole_number(label: Any) -> Any:
    """Return a whole number that a column with holes holds as a float as an int again, anything else as it is."""
    return int(label) if isinstance(label, float) and label.is_integer() else label


def listed(names: Sequence[Any], most: int = 12) -> str:
    """Return names in a row, the first few of many."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")
