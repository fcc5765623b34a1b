"""A task, read off the features of its data set where they say it."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Audio, ClassLabel, Dataset, Image, LargeList, List, Value

from ..modeling.errors import InputError
from ..modeling.problem_types import problem_type_with
from ..tasks import TaskSpec
from .column_hints import PAIRS, ROW_NAMES, choices_help, is_text, tokenised_help
from .label_columns import names_of_feature

_LABELS = ("label", "labels", "tags", "ner_tags", "answerKey")
# Of a column of texts, the share of its rows that differ from each other, above which they are no classes.
_MOST_NAMES = 0.5


def infer_spec(name: str, rows: Dataset) -> TaskSpec:
    """Read a task off a data set's features, and print what was read.

    ClassLabel and columns of few texts are classes, lists of them sets of labels (or tags beside ``tokens``), floats
    numbers, ``answers`` answers, ``choices`` choices. Two columns of texts are a pair only by names that are one
    (`PAIRS`).

    Raises:
        InputError: The features do not say what the task is; the message shows the row to write.
    """
    features = rows.features
    if features is None:
        raise InputError(
            f"The stream {name!r} does not say its features (after `map`, give `features=`); say the task: "
            f"TaskSpec(name={name!r}, problem_type={problem_type_with('class')!r}, labels=[...], columns={{...}})."
        )
    labels, fields = _labels_and_columns(name, rows, features)
    spec = TaskSpec(name=name, problem_type=problem_type_with(labels), columns=fields)
    if os.environ.get("RANK", "0") == "0":
        columns = ", ".join(f"{field} = {column}" for field, column in spec.columns.items())
        print(f"Task {name}: {spec.problem_type}, {columns} (read off the data set; say otherwise with tasks=).")
    return spec


def _labels_and_columns(name: str, rows: Dataset, features: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the kind of labels that a data set has, and the columns of the fields."""
    if {"question", "context", "answers"} <= features.keys():
        return "answers", {"question": "question", "context": "context", "label": "answers"}
    label = _label_column(name, features)
    if "tokens" in features and label is not None and isinstance(features[label], (List, LargeList)):
        return "tags", {"tokens": "tokens", "label": label}
    media = _media_columns(features)
    if media and label is None:
        # Beside an image or a sound there is nothing else that it could be.
        others = [column for column in features if column not in media and column not in ROW_NAMES]
        label = others[0] if len(others) == 1 else None
    texts = [column for column in features if is_text(features[column]) and column not in (*ROW_NAMES, label)]
    if label is not None and len(media) == 1 and not texts:
        column, field = next(iter(media.items()))
        if (labels := _kind_of_labels(rows, features, label)) is not None:
            return labels, {field: column, "label": label}
    if label is None or media or not texts:
        raise _unknown(name, features, label)
    if "choices" in features and len(texts) == 1:
        choices = "choices.text" if isinstance(features["choices"], Mapping) else "choices"
        return "choice", {"text": texts[0], "choices": choices, "label": label}
    labels = _kind_of_labels(rows, features, label)
    columns = _text_columns(name, features, texts, label) | {"label": label}
    if labels is None:
        types = f"{problem_type_with('class')!r} or {problem_type_with('number')!r}"
        raise InputError(
            f"Data set {name!r}: the column {label!r} could hold classes or numbers ({features[label]}). Say which: "
            f"tasks=[TaskSpec(name={name!r}, problem_type={types}, columns={columns})]."
        )
    return labels, columns


def _media_columns(features: Mapping[str, Any]) -> dict[str, str]:
    """By column of images or sounds the field that it is."""
    kinds = {column: "image" if isinstance(kind, Image) else "audio" for column, kind in features.items()}
    return {column: field for column, field in kinds.items() if isinstance(features[column], Image | Audio)}


def _label_column(name: str, features: Mapping[str, Any]) -> str | None:
    tags = [column for column in features if column in _LABELS or _is_tags(column, features)]
    if len(tags) > 1:
        raise InputError(
            f"Data set {name!r} has several columns that could be the label: {', '.join(tags)}. Say which: "
            f"TaskSpec(name={name!r}, problem_type=..., columns={{'label': {tags[0]!r}}})."
        )
    return tags[0] if tags else None


def _is_tags(column: str, features: Mapping[str, Any]) -> bool:
    """Return whether a column beside ``tokens`` has a class per word."""
    lists = isinstance(features[column], (List, LargeList))
    return "tokens" in features and lists and names_of_feature(features, column) is not None


def _kind_of_labels(rows: Dataset, features: Mapping[str, Any], label: str) -> str | None:
    kind = features[label]
    inner = kind.feature if isinstance(kind, (List, LargeList)) else None
    if isinstance(inner, (ClassLabel, Value)):
        return "label_set"
    if isinstance(kind, ClassLabel) or (isinstance(kind, Value) and kind.dtype == "bool"):
        return "class"
    if isinstance(kind, Value) and kind.dtype.startswith(("float", "double")):
        return "number"
    if is_text(kind) and isinstance(rows, Dataset) and _are_names(rows[label][:]):
        return "class"
    return None


def _are_names(values: Sequence[Any]) -> bool:
    """Return whether a column's texts are names of classes: few, and no numbers with a point."""
    names = {value for value in values if value is not None}
    numbers = any("." in name and name.replace(".", "", 1).removeprefix("-").isdecimal() for name in names)
    return 1 < len(names) <= max(_MOST_NAMES * len(values), 2) and not numbers


def _text_columns(name: str, features: Mapping[str, Any], texts: Sequence[str], label: str) -> dict[str, str]:
    if len(texts) == 1:
        return {"text": texts[0]}
    for first, second in PAIRS:
        if sorted(texts) == sorted((first, second)):
            return {"text": first, "text_pair": second}
    text = "text" if "text" in texts else texts[0]
    raise InputError(
        f"Data set {name!r} has several columns of texts: {', '.join(texts)}. Say which are read: "
        f"tasks=[TaskSpec(name={name!r}, problem_type=..., columns={{'text': {text!r}, 'label': {label!r}}})], and "
        f"'text_pair' for a second one.{choices_help(features, name, {'label': label})}"
    )


def _unknown(name: str, features: Mapping[str, Any], label: str | None) -> InputError:
    reason = f"The task of data set {name!r} cannot be read off its features ({', '.join(features)})."
    columns = {} if label is None else {"label": label}
    if advice := tokenised_help(features, label) or choices_help(features, name, columns):
        return InputError(reason + advice)
    fields = {field: repr(column) for column, field in _media_columns(features).items()} or {"text": "..."}
    written = ", ".join(f"{field!r}: {column}" for field, column in fields.items())
    return InputError(
        f"{reason} Say it: tasks=[TaskSpec(name={name!r}, problem_type={problem_type_with('class')!r}, "
        f"columns={{{written}, 'label': {'...' if label is None else repr(label)}}})]."
    )
