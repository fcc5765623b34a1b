"""Task rows become a mixture: checked training and held-out rows of every task."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from datasets import Dataset, IterableDataset
from transformers.utils.logging import get_logger

from ..modeling.errors import InputError, check_choice, nearest
from ..tasks import LABEL_FIELD, TaskSpec, as_spec, join_sources
from .canonical import canonical_splits, canonical_task
from .caps import EVAL_SEED, drawn_rows, smaller_cap
from .dataset_forms import dataset_of_rows, second_set_help
from .inference import infer_spec
from .label_kinds import label_kind
from .loading import load_splits
from .overlap import input_keys, without_overlap

logger = get_logger(__name__)

# Labels of a stream are measured in so many rows at its beginning.
_MEASURED_ROWS = 1000


@dataclass
class Mixture:
    """The rows of several tasks, with input fields and ``label`` as columns.

    Args:
        specs: The tasks in order, their labels filled in.
        train: Training rows by task.
        validation: Validation rows by task.
        test: Test rows by task, where a task has them.
        dropped: How many training rows each task lost because their input stands in a held-out split.
        streams: Training rows by source, where they are read as they come; `train` is then empty.
    """

    specs: list[TaskSpec]
    train: dict[str, Dataset]
    validation: dict[str, Dataset]
    test: dict[str, Dataset] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)
    streams: dict[str, IterableDataset] = field(default_factory=dict)


def load_mixture(
    specs: Sequence[TaskSpec],
    data_dir: str | None = None,
    exclude_overlap: bool | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
) -> Mixture:
    """Load, check and cap the rows of every task.

    Training rows are drawn with the seed. Held-out rows are a random part that no seed changes, so that runs compare;
    not the first rows, since a file may be sorted by class. Tasks of one source are capped on the same rows.

    Args:
        specs: The tasks; the labels of those that name none are filled in. Label statistics are in `Mixture.specs`.
        data_dir: A folder with a folder per task, read in place of the Hub.
        exclude_overlap: Drop training rows whose normalised input, of 12 characters or more, stands in any task's
            held-out split. None drops them, unless they are more than half of a task's rows: then an error asks for
            True or False.
        max_train_samples: Training rows of each task at most; of this and a task's own cap the smaller holds.
        max_eval_samples: Rows of each task's validation and test split at most; likewise.
        seed: Draws the training rows that a cap keeps.

    Raises:
        InputError: Anything in a data set that cannot be used.
    """
    splits, read_specs = {}, []
    for spec in map(as_spec, specs):
        loaded, local, places = load_splits(spec, data_dir)
        read, rows = canonical_task(spec.without_measured(), loaded, local, places)
        splits[spec.name] = _with_validation(rows, read)
        spec.show_labels(read)
        read_specs.append(read)
    return _build_mixture(read_specs, splits, exclude_overlap, max_train_samples, max_eval_samples, seed)


def _build_mixture(
    specs: Sequence[TaskSpec],
    splits: Mapping[str, Mapping[str, Dataset]],
    exclude_overlap: bool | None = None,
    max_train_samples: int | None = None,
    max_eval_samples: int | None = None,
    seed: int = 42,
) -> Mixture:
    """Cap, part and measure canonical rows; see `load_mixture`."""
    by_name = {spec.name: spec for spec in specs}
    parts = {
        split: {name: rows[split] for name, rows in splits.items() if split in rows}
        for split in ("train", "validation", "test")
    }
    # Against the whole splits, so that a cap on evaluation lets nothing through.
    held_out = {split: parts[split] for split in ("validation", "test")}
    train, dropped = without_overlap(parts["train"], held_out, by_name, exclude_overlap)
    caps = {name: smaller_cap(spec.max_train_samples, max_train_samples) for name, spec in by_name.items()}
    train = drawn_rows(train, caps, specs, seed, "max_train_samples")
    for name in train:
        if len(train[name]) == 0:
            raise InputError(f"Task {name!r} has no training rows; expected one at least.")
        by_name[name] = _measure_labels(by_name[name], train[name])
    caps = {name: smaller_cap(spec.max_eval_samples, max_eval_samples) for name, spec in by_name.items()}
    validation, test = (
        drawn_rows(held_out[split], caps, specs, EVAL_SEED, "max_eval_samples") for split in ("validation", "test")
    )
    return Mixture(list(by_name.values()), train, validation, test, dropped)


def mixture_from_datasets(
    train: Mapping[str, Dataset],
    validation: Mapping[str, Dataset] | None,
    specs: Sequence[TaskSpec] | None = None,
    labels: Mapping[str, list[str] | None] | None = None,
    exclude_overlap: bool | None = False,
) -> Mixture:
    """Build a mixture from data sets by task name; tasks not given are read off their features.

    Args:
        train: Training rows by task name, or by source where several tasks share one.
        validation: Validation rows likewise, or by task; a task may lack them.
        specs: The tasks, where the features do not say enough.
        labels: Label names by task, of a model that has them, for tasks that do not give their own.
        exclude_overlap: As of `load_mixture`; rows that a program was handed are kept by default.

    Raises:
        InputError: Names that do not fit together, or rows that cannot be used.
    """
    ordered = _specs_of_datasets(train, validation, specs, labels)
    splits, read_specs = {}, []
    for spec in ordered:
        rows = {"train": train[spec.source_name]}
        for name in (spec.source_name, spec.name):
            if validation and name in validation:
                rows["validation"] = validation[name]
        read, canonical = canonical_task(spec, rows, local=False)
        splits[spec.name] = _with_validation(canonical, read)
        read_specs.append(read)
    mixture = _build_mixture(read_specs, splits, exclude_overlap)
    for name, count in mixture.dropped.items():
        if count:
            logger.warning(f"Task {name}: {count:,} training rows dropped, their input stands in a held-out split.")
    return mixture


def mixture_from_streams(
    train: Mapping[str, Any],
    validation: Mapping[str, Dataset] | None,
    specs: Sequence[TaskSpec] | None = None,
    labels: Mapping[str, list[str] | None] | None = None,
) -> Mixture:
    """Build a mixture whose training rows are read as they come; see `mixture_from_datasets`.

    Raises:
        InputError: Some training sets are streams and others not, or rows cannot be used.
    """
    for name, rows in train.items():
        if not isinstance(rows, IterableDataset):
            raise InputError(
                f"Some training sets are streams, {name!r} is not; make it one with .to_iterable_dataset(), or load "
                "the others into memory."
            )
    ordered = _specs_of_datasets(train, validation, specs, labels)
    held_out = {}
    measured = [_measure_first_rows(spec, train[spec.source_name]) for spec in ordered]
    for spec in measured:
        for name in (spec.source_name, spec.name):
            if validation and name in validation:
                held_out[spec.name] = canonical_splits(spec, {"validation": validation[name]}, local=False)[
                    "validation"
                ]
    return Mixture(measured, {}, held_out, streams=dict(train))


def _measure_first_rows(spec: TaskSpec, stream: IterableDataset) -> TaskSpec:
    """Return a task with labels and label statistics of its stream's features and first rows.

    Raises:
        InputError: No rows, or labels that neither the stream's features nor the task's row name.
    """
    first = dataset_of_rows(list(stream.take(_MEASURED_ROWS)), stream.features)
    if len(first) == 0:
        raise InputError(f"The stream of task {spec.name!r} has no rows.")
    column = str(spec.column_of(LABEL_FIELD, local=False)).partition(".")[0]
    named = spec.labels is not None or "ClassLabel" in str((stream.features or {}).get(column))
    if spec.problem.has_label_names and not named:
        raise InputError(
            f"Task {spec.name!r}: a stream does not tell all its labels beforehand. Write `labels: [...]` in the "
            "task's row, or give the stream ClassLabel features."
        )
    spec, rows = canonical_task(spec, {"train": first}, local=False)
    return _measure_labels(spec, rows["train"])


def _specs_of_datasets(
    train: Mapping[str, Any],
    validation: Mapping[str, Any] | None,
    specs: Sequence[TaskSpec] | None,
    labels: Mapping[str, list[str] | None] | None = None,
) -> list[TaskSpec]:
    """Return the tasks in the order of their data sets: those given, the others read off the features.

    Args:
        train: Training rows by source.
        validation: Validation rows by source or task.
        specs: The tasks that are given.
        labels: Label names by task, of a model that has them, for tasks that do not give their own.

    Raises:
        InputError: Names that do not fit together, or features that do not say what the task is.
    """
    given = join_sources(as_spec(spec) for spec in specs or ())
    for spec in given:
        check_choice(f"source of task {spec.name!r} in train_dataset:", spec.source_name, train)
    ordered: list[TaskSpec] = []
    for name, rows in train.items():
        ordered += [spec for spec in given if spec.source_name == name] or [infer_spec(name, rows)]
    ordered = [spec if spec.labels else spec.with_measured(labels=(labels or {}).get(spec.name)) for spec in ordered]
    names = {name for spec in ordered for name in (spec.name, spec.source_name)}
    for name in validation or {}:
        if name not in names:
            raise InputError(
                f"eval_dataset has the task {name!r}, which train_dataset lacks: {', '.join(train)}."
                f"{nearest(name, sorted(names))} {second_set_help(next(iter(train)), name)}"
            )
    return ordered


def _measure_labels(spec: TaskSpec, rows: Dataset) -> TaskSpec:
    """Return the task with the statistics of its training labels: those of numbers, and the weights of rare labels
    where it asks for them.
    """
    kind, labels = label_kind(spec), rows[LABEL_FIELD][:]
    spec = spec.with_measured(**kind.statistics(spec, labels))
    if spec.balance_classes:
        if not spec.problem.has_label_names:
            raise InputError(f"`balance_classes` makes no sense for task {spec.name!r} ({spec.problem_type}).")
        measured = kind.class_weights(spec, labels)
        if spec.class_weights is not None and not np.allclose(spec.class_weights, measured):
            raise InputError(
                f"Task {spec.name!r} has class_weights={spec.class_weights!r} and balance_classes=True, which would "
                f"be {[round(weight, 4) for weight in measured]!r}; leave one of the two out."
            )
        spec = spec.with_measured(class_weights=measured)
    return spec


_HASHES = 2**32


def _with_validation(splits: Mapping[str, Dataset], spec: TaskSpec) -> dict[str, Dataset]:
    """Return a task's canonical splits; where there is no validation split, `validation_share` of the training rows
    becomes it.

    A hash of a row's input says on which side it is: equal inputs stay together, in one task or in two, and rows that
    are added later move none.

    Raises:
        InputError: One of the two sides has no row.
    """
    if "validation" in splits or spec.validation_share is None:
        return dict(splits)
    rows = splits["train"]
    out = [zlib.crc32(key.encode()) < spec.validation_share * _HASHES for key in input_keys(rows, spec)]
    if all(out) or not any(out):
        raise InputError(
            f"Task {spec.name!r} has {len(rows)} training rows; validation_share={spec.validation_share!r} leaves "
            "none to train on or none to hold out."
        )
    train, validation = ([place for place, held in enumerate(out) if held is side] for side in (False, True))
    return {**splits, "train": rows.select(train), "validation": rows.select(validation)}
