"""Features as Arrow tables, and rows read from them without going through the whole table."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from datasets import Dataset

from ..modeling.media_features import Feature

# Numbers in one chunk of a list column at most: Arrow counts them with 32 bits.
_CHUNK_NUMBERS = 2**30


def table_of(features: Sequence[Feature]) -> pa.Table:
    """Return features as a table, whole numbers in 32 bits where they fit."""
    return pa.table({key: _narrow(pa.array([feature[key] for feature in features])) for key in features[0]})


def _narrow(array: pa.Array) -> pa.Array:
    try:
        return array.cast(_narrow_type(array.type))
    except pa.ArrowInvalid:
        return array


def _narrow_type(given: pa.DataType) -> pa.DataType:
    if pa.types.is_list(given):
        return pa.list_(_narrow_type(given.value_type))
    return pa.int32() if pa.types.is_int64(given) else given


def join_tables(tables: Sequence[pa.Table]) -> pa.Table:
    """Return tables as one of few chunks, from which rows are read fastest."""
    joined = pa.concat_tables(tables, promote_options="permissive")
    most = max(1, _CHUNK_NUMBERS * len(joined) // max(joined.nbytes, 1))
    parts = [joined.slice(start, most).combine_chunks() for start in range(0, len(joined), most)]
    return pa.concat_tables(parts)


class FeatureRows:
    """Reads rows of a task's features.

    What Arrow holds, in memory or mapped from a file, is looked at where it stands: only the rows read are copied, and
    a process that is given a pickled reader of a file opens the file.

    Args:
        features: The features.
    """

    def __init__(self, features: Dataset) -> None:
        self.features = features
        self._set_up()

    def _set_up(self) -> None:
        batches = [batch for batch in self.features.data.table.to_batches() if len(batch)]
        self._columns = [[_column_rows(column) for column in batch.columns] for batch in batches]
        self._starts = np.cumsum([0, *map(len, batches)])

    def __getstate__(self) -> dict[str, Any]:
        return {"features": self.features}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.features = state["features"]
        self._set_up()

    def __len__(self) -> int:
        return int(self._starts[-1])

    def numbers(self, name: str) -> np.ndarray:
        """Return a column of numbers, (rows,)."""
        return self.features.data.table.column(name).to_numpy().astype(np.int64)

    def read(self, places: np.ndarray, names: Sequence[str] | None = None) -> list[Feature]:
        """Return the rows at places in their order, all columns or those named."""
        if len(self._columns) == 1:
            return self._read(0, places, names)
        chunks = np.searchsorted(self._starts, places, side="right") - 1
        rows: list[Feature] = [{} for _ in places]
        for chunk in np.unique(chunks).tolist():
            inside = np.flatnonzero(chunks == chunk)
            for place, row in zip(inside.tolist(), self._read(chunk, places[inside] - self._starts[chunk], names)):
                rows[place] = row
        return rows

    def _read(self, chunk: int, places: np.ndarray, names: Sequence[str] | None) -> list[Feature]:
        columns = dict(zip(self.features.column_names, self._columns[chunk]))
        names = list(columns) if names is None else names
        return [dict(zip(names, values)) for values in zip(*(columns[name].read(places) for name in names))]


class _ColumnRows(Protocol):
    """One chunk of a column, or of what stands inside its lists."""

    def read(self, places: np.ndarray) -> list[Any]:
        """Return the values at places."""

    def between(self, start: int, past: int) -> list[Any]:
        """Return the values of a stretch."""


class _Lists:
    def __init__(self, array: pa.ListArray) -> None:
        self.ends: np.ndarray = array.offsets.to_numpy()
        self.values = _column_rows(array.values)

    def read(self, places: np.ndarray) -> list[Any]:
        starts, pasts = self.ends[places].tolist(), self.ends[places + 1].tolist()
        return [self.values.between(start, past) for start, past in zip(starts, pasts)]

    def between(self, start: int, past: int) -> list[Any]:
        ends = self.ends[start : past + 1].tolist()
        return [self.values.between(first, last) for first, last in zip(ends, ends[1:])]


class _Numbers:
    def __init__(self, array: pa.Array) -> None:
        self.numbers: np.ndarray = array.to_numpy(zero_copy_only=False)

    def read(self, places: np.ndarray) -> list[Any]:
        return self.numbers[places].tolist()

    def between(self, start: int, past: int) -> list[Any]:
        return self.numbers[start:past].tolist()


class _Others:
    """Texts, and columns in which values are missing."""

    def __init__(self, array: pa.Array) -> None:
        self.array = array

    def read(self, places: np.ndarray) -> list[Any]:
        return self.array.take(pa.array(places)).to_pylist()

    def between(self, start: int, past: int) -> list[Any]:
        return self.array.slice(start, past - start).to_pylist()


def _column_rows(array: pa.Array) -> _ColumnRows:
    if array.null_count:
        return _Others(array)
    if pa.types.is_list(array.type):
        return _Lists(array)
    is_number = pa.types.is_integer(array.type) or pa.types.is_floating(array.type) or pa.types.is_boolean(array.type)
    return _Numbers(array) if is_number else _Others(array)
