"""Whatever a data set calls its columns, here they become input fields and a label, and every label is checked."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset, List, Value

from ..modeling import InputError
from ..modeling.configuration_multitask import nearest
from ..tasks import LABEL_FIELD, ROW_FIELD, TaskSpec

LIST_FIELDS = ("tokens", "choices")

# What a column of labels holds, beside None and NaN, where a row has no label.
NO_LABEL = -100


def canonical_splits(spec: TaskSpec, splits: Mapping[str, Dataset], local: bool) -> dict[str, Dataset]:
    """Return the splits with the task's input fields and ``label`` as their only columns, and fill `spec.labels`.

    Labels become ids (single label: int, several: list of int, tags: list of int), floats, choice indices, or
    ``{"text": [...], "answer_start": [...]}``; names are kept in `spec.labels`, taken from the training split. Of a
    task that shares its source, rows without a label are left out, and `ROW_FIELD` keeps the others' places.

    Raises:
        InputError: A missing column, or a field or label that is empty, NaN, out of range or of the wrong type.
    """
    spec.labels = spec.labels or _label_names(spec, splits.get("train") or next(iter(splits.values())), local)
    spec.check_metric_labels()
    convert = LABEL_CONVERSIONS[spec.problem_type]
    found = {}
    for split, rows in splits.items():
        columns = {name: _field(spec, rows, name, split, local) for name in spec.input_fields}
        labels = _column(spec, rows, LABEL_FIELD, split, local)
        if spec.source is not None:
            columns, labels = _labelled_rows(spec, columns, labels, split)
        columns[LABEL_FIELD] = [
            _converted(convert, spec, label, f"Task {spec.name!r}, {split} row {index}")
            for index, label in enumerate(labels)
        ]
        _check_lengths(spec, columns, split)
        found[split] = Dataset.from_dict(columns)
    return found


def canonical_inputs(spec: TaskSpec, rows: Dataset, split: str) -> Dataset:
    """Return rows that have no labels with the task's input fields as their only columns.

    Raises:
        InputError: A missing column, or a field that is empty or of the wrong type.
    """
    columns = {name: _field(spec, rows, name, split, local=False) for name in spec.input_fields}
    places = {} if spec.source is None else {ROW_FIELD: list(range(len(rows)))}
    return Dataset.from_dict({**columns, **places})


def _labelled_rows(
    spec: TaskSpec, columns: Mapping[str, list[Any]], labels: Sequence[Any], split: str
) -> tuple[dict[str, list[Any]], list[Any]]:
    kept = [index for index, label in enumerate(labels) if not is_missing(label)]
    if not kept:
        raise InputError(f"Task {spec.name!r}: no row of the {split} split has a label.")
    found = {name: [values[index] for index in kept] for name, values in columns.items()}
    found[ROW_FIELD] = kept
    return found, [_whole(labels[index]) for index in kept]


def is_missing(label: Any) -> bool:
    """Whether a row has no label in a column with holes."""
    return label is None or label == NO_LABEL or (isinstance(label, float) and math.isnan(label))


def _whole(label: Any) -> Any:
    """A class id that a column with holes holds as a float, as an int again."""
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _column(spec: TaskSpec, rows: Dataset, name: str, split: str, local: bool) -> list[Any]:
    """The values of a field, from one column, from inside one, or from several."""
    source = spec.column_of(name, local)
    if isinstance(source, (list, tuple)):
        return [list(values) for values in zip(*(_plain_column(spec, rows, str(item), split) for item in source))]
    return _plain_column(spec, rows, str(source), split)


def _plain_column(spec: TaskSpec, rows: Dataset, source: str, split: str) -> list[Any]:
    column, _, inside = source.partition(".")
    if column not in rows.column_names:
        raise InputError(
            f"Task {spec.name!r}: the {split} split has no column {column!r}.{nearest(column, rows.column_names)} "
            f"Its columns: {', '.join(rows.column_names)}. Name them under `columns:` in the task's row."
        )
    values = rows.with_format(None)[column][:]
    if not inside:
        return values
    if not all(isinstance(value, Mapping) and inside in value for value in values):
        raise InputError(f"Task {spec.name!r}: column {column!r} of the {split} split holds no {inside!r}.")
    return [value[inside] for value in values]


def _field(spec: TaskSpec, rows: Dataset, name: str, split: str, local: bool) -> list[Any]:
    values = _column(spec, rows, name, split, local)
    for index, value in enumerate(values):
        is_list = isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value) and len(value) > 0
        if not (is_list if name in LIST_FIELDS else isinstance(value, str)):
            kind = "a list of texts" if name in LIST_FIELDS else "a text"
            raise InputError(f"Task {spec.name!r}, {split} row {index}: {name} is {value!r}; expected {kind}.")
    return values


def _label_names(spec: TaskSpec, train: Dataset, local: bool) -> list[str] | None:
    """Label names from the ClassLabel feature, else from the values that the training rows have."""
    if spec.problem_type in ("regression", "question_answering", "multiple_choice"):
        return None
    source = str(spec.column_of(LABEL_FIELD, local))
    feature = train.features.get(source)
    while isinstance(feature, List):
        feature = feature.feature
    if isinstance(feature, ClassLabel):
        return list(feature.names)
    values = _plain_column(spec, train, source, "train")
    if spec.source is not None:
        values = [_whole(value) for value in values if not is_missing(value)]
    if spec.problem_type != "single_label_classification":
        values = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    return _names_of(spec, [value for value in values if value is not None])


def _names_of(spec: TaskSpec, values: Sequence[Any]) -> list[str]:
    if values and all(isinstance(value, str) for value in values):
        names = set(values)
        # "O" first, so that an untrained or cut-off word is outside every span.
        return sorted(names, key=lambda name: (name != "O", name))
    if values and all(isinstance(value, int) and value >= 0 for value in values):
        return [str(index) for index in range(max(values) + 1)]
    # A column of whole numbers with holes reads as floats; the hole is what to name.
    whole = [isinstance(value, int) or (isinstance(value, float) and value.is_integer()) for value in values]
    odd = [value for value, is_whole in zip(values, whole) if not is_whole or value < 0]
    raise InputError(
        f"Task {spec.name!r} ({spec.problem_type}) has the label {[*odd, *values, None][0]!r}; "
        "expected class names or whole numbers >= 0."
    )


def _converted(convert: Callable[[TaskSpec, Any], Any], spec: TaskSpec, label: Any, where: str) -> Any:
    try:
        return convert(spec, label)
    except ValueError as error:
        raise InputError(f"{where}: the label is {label!r}; {error}.") from None


def _class_id(spec: TaskSpec, label: Any) -> int:
    names = spec.labels or []
    if isinstance(label, str):
        if label not in names:
            raise ValueError(f"expected one of {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}")
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < len(names):
        raise ValueError(f"expected a whole number from 0 to {len(names) - 1} or a label's name")
    return label


def _class_ids(spec: TaskSpec, labels: Any) -> list[int]:
    if not isinstance(labels, (list, tuple)):
        raise ValueError("expected a list of labels")
    return [_class_id(spec, label) for label in labels]


def _number(spec: TaskSpec, label: Any) -> float:
    if isinstance(label, bool) or not isinstance(label, (int, float)) or not math.isfinite(label):
        raise ValueError("expected a finite number")
    return float(label)


def _answers(spec: TaskSpec, label: Any) -> dict[str, list[Any]]:
    if not isinstance(label, Mapping) or not {"text", "answer_start"} <= label.keys():
        raise ValueError('expected answers such as {"text": ["Bob"], "answer_start": [17]}')
    return {"text": list(label["text"]), "answer_start": list(label["answer_start"])}


def _choice(spec: TaskSpec, label: Any) -> int:
    if isinstance(label, str):
        names = spec.labels or [str(name) for name in "ABCDEFGHIJ"]
        if label not in names:
            raise ValueError(f"expected the index of the right choice, or one of {', '.join(names)}")
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise ValueError("expected the index of the right choice, 0 or more")
    return label


LABEL_CONVERSIONS: dict[str, Callable[[TaskSpec, Any], Any]] = {
    "single_label_classification": _class_id,
    "multi_label_classification": _class_ids,
    "regression": _number,
    "token_classification": _class_ids,
    "question_answering": _answers,
    "multiple_choice": _choice,
}


def _check_lengths(spec: TaskSpec, columns: Mapping[str, Sequence[Any]], split: str) -> None:
    """Tags need one a word; a right choice must be among the choices; an answer must stand in its context."""
    for index, label in enumerate(columns[LABEL_FIELD]):
        where = f"Task {spec.name!r}, {split} row {index}"
        if spec.problem_type == "token_classification" and len(label) != len(columns["tokens"][index]):
            raise InputError(
                f"{where}: {len(label)} tags for {len(columns['tokens'][index])} tokens; expected one each."
            )
        if spec.problem_type == "multiple_choice" and label >= len(columns["choices"][index]):
            raise InputError(
                f"{where}: the right choice is {label}; there are {len(columns['choices'][index])} choices."
            )
        if spec.problem_type == "question_answering":
            for text, start in zip(label["text"], label["answer_start"]):
                if columns["context"][index][start : start + len(text)] != text:
                    raise InputError(
                        f"{where}: the answer {text!r} does not stand at character {start} of its context."
                    )


def infer_spec(name: str, rows: Dataset) -> TaskSpec:
    """Read a task off a data set's features: ClassLabel, lists of it, floats, answers, choices.

    Raises:
        InputError: The features do not say what the task is; the message shows the row to write.
    """
    features = rows.features
    if features is None:
        raise InputError(
            f"The stream {name!r} does not say its features (after `map`, give `features=`); say the task: "
            f"TaskSpec(name={name!r}, problem_type='single_label_classification', labels=[...], columns={{...}})."
        )
    texts = [
        column
        for column, feature in features.items()
        if isinstance(feature, Value) and feature.dtype in ("string", "large_string") and column not in ("id", "idx")
    ]
    if {"question", "context", "answers"} <= features.keys():
        return TaskSpec(name=name, problem_type="question_answering", columns={"label": "answers"})
    label = next((column for column in ("label", "labels", "tags", "ner_tags") if column in features), None)
    kind = features[label] if label else None
    inner = kind.feature if isinstance(kind, List) else None
    pair = {"text": texts[0], "text_pair": texts[1]} if len(texts) == 2 else {"text": texts[0]} if texts else {}
    if label and "choices" in features and len(texts) == 1:
        return TaskSpec(name=name, problem_type="multiple_choice", columns={"text": texts[0], "label": label})
    if isinstance(inner, ClassLabel) and "tokens" in features:
        return TaskSpec(name=name, problem_type="token_classification", columns={"label": label})
    if label and len(texts) in (1, 2):
        columns = {**pair, "label": label}
        if isinstance(kind, ClassLabel):
            return TaskSpec(name=name, problem_type="single_label_classification", columns=columns)
        if isinstance(inner, ClassLabel):
            return TaskSpec(name=name, problem_type="multi_label_classification", columns=columns)
        if isinstance(kind, Value) and kind.dtype.startswith("float"):
            return TaskSpec(name=name, problem_type="regression", columns=columns)
    raise InputError(
        f"The task of data set {name!r} cannot be read off its features ({', '.join(features)}). Say it: "
        f"TaskSpec(name={name!r}, problem_type='single_label_classification', columns={{'text': ..., 'label': ...}})."
    )
