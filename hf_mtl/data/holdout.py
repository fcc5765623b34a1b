"""A validation split for data sets that have none."""

import zlib
from collections.abc import Mapping

from datasets import Dataset

from ..modeling import InputError
from ..tasks import TaskSpec
from .overlap import input_keys

HASHES = 2**32


def with_validation(splits: Mapping[str, Dataset], spec: TaskSpec) -> dict[str, Dataset]:
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
    out = [zlib.crc32(key.encode()) < spec.validation_share * HASHES for key in input_keys(rows, spec)]
    if all(out) or not any(out):
        raise InputError(
            f"Task {spec.name!r} has {len(rows)} training rows; validation_share={spec.validation_share!r} leaves "
            "none to train on or none to hold out."
        )
    train, validation = ([place for place, held in enumerate(out) if held is side] for side in (False, True))
    return {**splits, "train": rows.select(train), "validation": rows.select(validation)}
