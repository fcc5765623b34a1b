"""Columns of images, sounds and rows of tables, as they stand in a data set: nothing is decoded, nothing copied."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset, Image

from ..modeling.errors import InputError, nearest
from ..modeling.modalities import TABLE
from ..modeling.sound_files import sound_bytes
from ..tasks import LABEL_FIELD, TaskSpec
from .row_places import RowPlaces

# What an image or a sound is until it is read: its bytes, or the file that holds it.
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def media_column(spec: TaskSpec, rows: Dataset, name: str, places: RowPlaces, local: bool) -> pa.ChunkedArray:
    """Return a field's column: structs of bytes and path, or of the columns of a table.

    Args:
        spec: The task.
        rows: Its data set.
        name: The field.
        places: Where the rows stand.
        local: Whether the task's `local_columns` apply.

    Raises:
        InputError: There is no such column, it holds no images or sounds, or one of its values is missing.
    """
    source = spec.column_of(name, local)
    if name == TABLE:
        return _table_column(spec, rows, source, places, local)
    _check_columns(spec, rows, [source], places)
    feature = rows.features[source]
    if isinstance(feature, Image | Audio):
        plain = rows.select_columns([source]).cast_column(source, type(feature)(decode=False))
        column = plain.with_format("arrow")[:].column(source).cast(_FILE)
    else:
        column = pa.chunked_array([_files(spec, rows.with_format(None)[source][:], name, places)])
    if column.null_count:
        place = column.is_null().to_pylist().index(True)
        raise InputError(f"Task {spec.name!r}, {places.name(place)}: {name} is None; expected one in every row.")
    return column


def _files(spec: TaskSpec, values: Sequence[Any], name: str, places: RowPlaces) -> pa.Array:
    """Texts as files, whose paths begin where the file of rows lies; bytes and mappings as they are."""
    folder = Path(places.path).parent if places.path is not None else Path()
    files: list[dict[str, Any] | None] = []
    for index, value in enumerate(values):
        if isinstance(value, str) and value:
            files.append({"bytes": None, "path": str(folder / value)})
        elif isinstance(value, bytes):
            files.append({"bytes": value, "path": None})
        elif isinstance(value, dict) and value.get("array") is not None and value.get("sampling_rate"):
            files.append({"bytes": sound_bytes(value["array"], int(value["sampling_rate"])), "path": None})
        elif isinstance(value, dict) and value.keys() & {"bytes", "path"}:
            files.append({"bytes": value.get("bytes"), "path": value.get("path")})
        elif value is None:
            files.append(None)
        else:
            raise InputError(
                f"Task {spec.name!r}, {places.name(index)}: {name} is a {type(value).__name__}; expected the path of "
                f"a file, or a column of datasets.{name.capitalize()}."
            )
    return pa.array(files, type=_FILE)


def _table_column(spec: TaskSpec, rows: Dataset, source: Any, places: RowPlaces, local: bool) -> pa.ChunkedArray:
    """The columns of a table as one, a struct per row."""
    if isinstance(source, str) and source in rows.column_names:
        return rows.with_format("arrow")[:].column(source)
    names = [source] if isinstance(source, str) else list(source)
    if not names:
        raise InputError(f"Task {spec.name!r} reads no column of its `table`; name some: columns: {{table: [...]}}.")
    _check_columns(spec, rows, names, places)
    label = spec.column_of(LABEL_FIELD, local)
    if leaked := [name for name in names if name in (label if isinstance(label, list) else [label])]:
        raise InputError(
            f"Task {spec.name!r}: the column {leaked[0]!r} is its label and one of the columns of its `table`; take "
            "it out of them."
        )
    table = rows.select_columns(list(dict.fromkeys(names))).with_format("arrow")[:].combine_chunks()
    arrays = [_cells(table.column(name).combine_chunks(), rows.features[name]) for name in names]
    return pa.chunked_array([pa.StructArray.from_arrays(arrays, names=names)])


def _cells(cells: pa.Array, feature: Any) -> pa.Array:
    """A column's cells; classes by their names, which say that their numbers are none."""
    if not isinstance(feature, ClassLabel):
        return cells
    names = feature.names
    return pa.array(
        [names[cell] if cell is not None and cell >= 0 else None for cell in cells.to_pylist()], pa.string()
    )


def _check_columns(spec: TaskSpec, rows: Dataset, names: Sequence[str], places: RowPlaces) -> None:
    for name in names:
        if name not in rows.column_names:
            raise InputError(
                f"Task {spec.name!r}: the {places.split} split has no column {name!r}."
                f"{nearest(str(name), rows.column_names)} Its columns: {', '.join(rows.column_names)}. Name them "
                "under `columns:` in the task's row."
            )


def with_media(rows: Dataset, media: dict[str, pa.ChunkedArray]) -> Dataset:
    """Return rows with columns of media beside their others, as plain structs."""
    if not media:
        return rows
    table = rows.data.table
    for name, column in media.items():
        table = table.append_column(name, column)
    # Without what a data set wrote there of its own columns.
    return Dataset(table.replace_schema_metadata(None))
