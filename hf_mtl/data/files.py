"""Files become rows, as they stand or not at all; messages name file and line."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from datasets.exceptions import DatasetGenerationError

from ..modeling.errors import InputError
from ..modeling.problem_types import problem_type_with
from .conll_files import HOW_TO_NAME, read_sentences, token_columns
from .csv_files import read_csv_rows, read_tsv_rows
from .json_files import read_json_rows
from .row_places import RowPlaces
from .text_lines import FileRow, LineError, read_lines

_ROW_READERS: dict[str, Callable[[Iterator[str]], Iterator[FileRow]]] = {
    ".jsonl": read_json_rows,
    ".ndjson": read_json_rows,
    ".json": read_json_rows,
    ".csv": read_csv_rows,
    ".tsv": read_tsv_rows,
}
CONLL_SUFFIXES = (".conll", ".conllu", ".iob", ".bio")

# Read as CoNLL where the task's columns are numbers.
_MAYBE_CONLL_SUFFIXES = (".txt", ".tsv")

_ARROW_READERS: dict[str, Callable[[str], Dataset]] = {".parquet": Dataset.from_parquet, ".arrow": Dataset.from_file}

# Rows of a parquet file that are in memory at once.
_ROWS_OF_BATCH = 1024

SUFFIXES = (*_ARROW_READERS, *_ROW_READERS, *CONLL_SUFFIXES)

# Every text format packed, too.
ALL_SUFFIXES = (*SUFFIXES, *(f"{suffix}.gz" for suffix in SUFFIXES if suffix not in _ARROW_READERS))

_IN_PANDAS = "In pandas: {reader}(PATH).to_json('rows.jsonl', orient='records', lines=True)"
_UNPACK = "Unpack it and name the file inside; of packed files .gz is read"
_REFUSED = {
    ".zip": _UNPACK,
    ".tar": _UNPACK,
    ".bz2": _UNPACK,
    ".xz": _UNPACK,
    ".zst": _UNPACK,
    ".xlsx": "Save the sheet as csv (UTF-8). " + _IN_PANDAS.replace("{reader}", "pd.read_excel"),
    ".xls": "Save the sheet as csv (UTF-8). " + _IN_PANDAS.replace("{reader}", "pd.read_excel"),
    ".pkl": "A pickle runs code when it is read. " + _IN_PANDAS.replace("{reader}", "pd.read_pickle"),
    ".pickle": "A pickle runs code when it is read. " + _IN_PANDAS.replace("{reader}", "pd.read_pickle"),
    ".feather": _IN_PANDAS.replace("{reader}", "pd.read_feather"),
    ".txt": f"A .txt is read as CoNLL where the columns of a token task are numbers: {HOW_TO_NAME}",
}

_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}


def read_file(path: Path, split: str, columns: Mapping[str, Any] | None = None) -> tuple[Dataset, RowPlaces]:
    """Read a file of rows, and where each of them stands.

    Every column of csv and tsv files holds texts, or None where a cell is empty; of CoNLL files lists of texts, under
    the names that `columns` gives; of JSON what stands there, None where a row lacks a key; parquet and arrow files
    keep their features.

    Args:
        path: A file whose ending is one of `ALL_SUFFIXES`, or of `_MAYBE_CONLL_SUFFIXES` where columns are numbers.
        split: What messages call the rows of files without lines.
        columns: A token task's column of ``tokens`` and of ``label``; None for other tasks.

    Raises:
        InputError: No such file, one that is not read, or one of its rows cannot be read.
    """
    suffix = _suffix(path)
    if suffix in _ARROW_READERS:
        return _read_arrow(path, suffix), RowPlaces(split, str(path))
    if suffix in CONLL_SUFFIXES or (suffix in _MAYBE_CONLL_SUFFIXES and _are_numbers(columns)):
        rows = _read_conll(path, suffix, columns)
    elif suffix not in _ROW_READERS:
        raise InputError(_refusal(path, suffix))
    else:
        rows = _checked(path, _ROW_READERS[suffix](read_lines(path)))
    lines = []
    kept: list[dict[str, Any]] = []
    for row in rows:
        if row.fault:
            raise InputError(f"{path}, line {row.line}: {row.fault}.")
        lines.append(row.line)
        kept.append(row.values)
    return _dataset(path, kept, lines), RowPlaces(split, str(path), lines)


def iterate_rows(path: Path) -> Iterator[FileRow]:
    """Yield the rows of a jsonl, json, csv, tsv, parquet or arrow file; those that cannot be read have a `fault`.

    No more of the file is in memory than some rows, but for a .json that is one list.

    Raises:
        InputError: No such file, one of another format, or whose rows cannot be told apart.
    """
    suffix = _suffix(path)
    if suffix in _ARROW_READERS:
        yield from _arrow_rows(path, suffix)
    elif suffix in _ROW_READERS:
        yield from _checked(path, _ROW_READERS[suffix](read_lines(path)))
    else:
        expected = ", ".join((*_ROW_READERS, *_ARROW_READERS))
        raise InputError(f"{path}: the ending {suffix!r} is not read here; expected one of {expected}.")


def place_of_row(path: Path, number: int) -> str:
    """Return what messages call a row of `iterate_rows`: its line, or its number where a file has no lines."""
    return f"{path}, {'row' if path.suffix.lower() in _ARROW_READERS else 'line'} {number}"


def _arrow_rows(path: Path, suffix: str) -> Iterator[FileRow]:
    """The rows of a parquet or arrow file, numbered from 1."""
    number = 0
    try:
        batches = (
            pq.ParquetFile(path).iter_batches(_ROWS_OF_BATCH)
            if suffix == ".parquet"
            else Dataset.from_file(str(path)).data.to_batches(_ROWS_OF_BATCH)
        )
        for batch in batches:
            for values in batch.to_pylist():
                number += 1
                yield FileRow(number, values)
    except (OSError, ValueError, TypeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{str(path)!r} cannot be read as {suffix[1:]}: {reason}") from error


def _suffix(path: Path) -> str:
    """The ending that says the format, in small letters and without ``.gz``."""
    if path.is_dir():
        raise InputError(
            f"{str(path)!r} is a folder; expected a file. A folder with files such as train.csv is a `dataset:`."
        )
    suffix = path.suffix.lower()
    packed = suffix == ".gz"
    if packed:
        suffix = path.with_suffix("").suffix.lower()
    if not path.is_file():
        raise InputError(f"There is no file {str(path)!r}.")
    if packed and suffix in _ARROW_READERS:
        raise InputError(f"{path}: a {suffix} is not read packed. Type: gunzip {path}")
    if suffix in SUFFIXES or suffix in _MAYBE_CONLL_SUFFIXES:
        return suffix
    raise InputError(_refusal(path, suffix))


def _refusal(path: Path, suffix: str) -> str:
    advice = f" {_REFUSED[suffix].replace('PATH', repr(str(path)))}." if suffix in _REFUSED else ""
    ending = f"has the ending {suffix!r}, which is not read" if suffix else "has no ending that says its format"
    return f"{str(path)!r} {ending}; expected one of {', '.join(SUFFIXES)}.{advice}"


def _checked(path: Path, rows: Iterator[FileRow]) -> Iterator[FileRow]:
    try:
        yield from rows
    except LineError as error:
        raise InputError(f"{path}, line {error.line}: {error}.") from error


def _are_numbers(columns: Mapping[str, Any] | None) -> bool:
    return any(isinstance(column, int) for column in (columns or {}).values())


def _read_conll(path: Path, suffix: str, columns: Mapping[str, Any] | None) -> Iterator[FileRow]:
    if columns is None:
        raise InputError(
            f"{path} is a CoNLL file, of tokens and tags; expected a task of {problem_type_with('tags')}."
        )
    is_conllu = suffix == ".conllu"
    try:
        numbers = token_columns(columns, is_conllu)
    except ValueError as error:
        raise InputError(f"{path}: {error}.") from error
    return _checked(path, read_sentences(read_lines(path), numbers, is_conllu))


def _read_arrow(path: Path, suffix: str) -> Dataset:
    try:
        return _ARROW_READERS[suffix](str(path))
    except (OSError, ValueError, TypeError, pa.ArrowException, DatasetGenerationError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise InputError(f"{str(path)!r} cannot be read as {suffix[1:]}: {reason}") from error


def _dataset(path: Path, rows: Sequence[dict[str, Any]], lines: Sequence[int]) -> Dataset:
    """The rows as columns, in the order in which their names are first seen."""
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return Dataset(pa.table({name: _column(path, name, [row.get(name) for row in rows], lines) for name in names}))
    except (pa.ArrowInvalid, RecursionError) as error:
        depth, line, name = max((_depth(row[name]), line, name) for row, line in zip(rows, lines) for name in row)
        raise InputError(
            f"{path}, line {line}: {name} has {depth:,} lists or objects inside each other, more than a table holds: "
            f"{' '.join(str(error).split())}. Write it flatter, or as a text."
        ) from error


def _depth(value: Any) -> int:
    """Return how many lists or objects stand inside each other, counted by level: there may be thousands."""
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, (list, dict))]:
        depth += 1
        level = [part for item in level for part in (item.values() if isinstance(item, dict) else item)]
    return depth


def _column(path: Path, name: str, values: Sequence[Any], lines: Sequence[int]) -> pa.Array:
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        _refuse_mixed(path, name, values, lines)
        raise InputError(f"{path}: the column {name!r} cannot be read: {error}") from error
    # Beside fractions a true would become 1.0 without a word.
    if "double" in str(column.type):
        _refuse_mixed(path, name, values, lines)
    return column


def _refuse_mixed(path: Path, name: str, values: Sequence[Any], lines: Sequence[int]) -> None:
    """Raise an error that names the lines of values that are no column together, or of a number that is too large."""
    first: dict[str, tuple[str, int, Any]] = {}
    for value, line in zip(values, lines):
        for place, item in _parts(name, value):
            kind = _KINDS[type(item)]
            other, other_line, other_item = first.setdefault(place, (kind, line, item))
            if kind != other:
                raise InputError(
                    f"{path}, line {line}: {place} is {_short(item)}, {kind}; line {other_line} has "
                    f"{_short(other_item)}, {other}. Expected values of one kind in a column: write them alike."
                )
            if type(item) is int and not -(2**63) <= item < 2**63:
                raise InputError(
                    f"{path}, line {line}: {place} is {_short(item)}; expected a whole number of 64 bits. Write it as "
                    "a text, in quotes."
                )


def _parts(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Return what a value holds, each with its place in it; holes are left out."""
    if value is None:
        return
    yield place, value
    if isinstance(value, list):
        for item in value:
            yield from _parts(f"{place}[]", item)
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _parts(f"{place}.{name}", item)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
