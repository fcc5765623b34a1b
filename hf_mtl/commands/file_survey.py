"""One reading of a file before anything is answered: its size, its columns, and whether it can be answered at all."""

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from ..data.files import iterate_rows, place_of_row
from ..modeling.errors import InputError, check_choice
from ..modeling.input_rows import ROW_FIELDS
from ..modeling.modalities import TABLE
from ..modeling.task_config import TaskConfig

_OUTPUT_SUFFIXES = (".jsonl", ".ndjson", ".csv")
# Columns of a table that a message names.
_SHOWN = 8
# What the output says of a row beside its own values.
_WRITTEN = ("answers", "error")


@dataclass(frozen=True)
class Survey:
    """Size and columns of a file, from one reading before anything is answered.

    Args:
        num_rows: How many rows it has, those that cannot be read included.
        columns: Names of its columns.
        digest: Of its bytes.
    """

    num_rows: int
    columns: tuple[str, ...]
    digest: str


def survey_file(path: Path, named: Mapping[str, str] = MappingProxyType({})) -> Survey:
    """Read a file through, and refuse one of which nothing can be answered.

    Args:
        path: The file.
        named: By input field the column that it is read from, where their names differ.

    Raises:
        InputError: No row can be read, or a column has a name that the output needs.
    """
    columns: dict[str, None] = {}
    count, first_fault, is_readable = 0, None, False
    for row in iterate_rows(path):
        count += 1
        columns.update(dict.fromkeys(row.values))
        is_readable = is_readable or not row.fault
        first_fault = first_fault or (row if row.fault else None)
    if not count:
        raise InputError(f"{path} holds no rows.")
    if first_fault is not None and not is_readable:
        place = place_of_row(path, first_fault.line)
        raise InputError(f"{place}: {first_fault.fault}. No row of the file can be read.")
    for name in named.values():
        check_choice(f"column of {path}:", name, list(columns))
    for name in _WRITTEN:
        if name in columns:
            raise InputError(f"{path} has a column {name!r}, which the output would write over; rename it.")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Survey(count, tuple(columns), digest)


def check_fields(path: Path, columns: Collection[str], tasks: Sequence[TaskConfig]) -> None:
    """Check that a file has a column which some task reads.

    Args:
        path: The file.
        columns: Its columns, and the fields that are read from some of them.
        tasks: The tasks to answer.

    Raises:
        InputError: It has none.
    """
    cells = dict.fromkeys(name for task in tasks for name in task.table_columns or ())
    if set(columns) & {*ROW_FIELDS, *cells}:
        return
    first = next(iter(columns), "COLUMN")
    fields = dict.fromkeys(field for task in tasks for field in task.input_fields if field != TABLE)
    expected = ", ".join([*fields, *list(cells)[:_SHOWN], *(["..."] if len(cells) > _SHOWN else [])])
    raise InputError(
        f"{path} has the columns {', '.join(columns) or 'of no name'}; the tasks read {expected}. Rename the columns "
        f"to answer, or say which they are: --columns {next(iter(fields), 'text')}={first}."
    )


def check_output(path: Path) -> None:
    """Check that answers can be written to a file.

    Raises:
        InputError: It exists, has no folder, or another ending than a format that is written.
    """
    if path.suffix.lower() not in _OUTPUT_SUFFIXES:
        raise InputError(f"--output {path}: expected a file that ends in {', '.join(_OUTPUT_SUFFIXES)}.")
    if path.exists():
        raise InputError(f"{str(path)!r} exists; nothing was written over. Name another --output.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {str(path.parent)!r}; make it or name another --output.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(f"The folder {str(path.parent)!r} cannot be written to; name another --output.")
