"""Rows of csv files (RFC 4180, quotes read) and of tsv files (no quotes): every cell a text, an empty one None."""

import csv
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import chain

from .text_lines import FileRow, LineError

# What stands between the columns of files that are called csv, beside the comma.
_OTHER_SEPARATORS = (";", "\t", "|")

# What pandas calls the column of its index when it reads what it wrote.
_INDEX_COLUMN = "Unnamed: 0"

_QUOTED = re.compile(r'"[^"]*+(?:""[^"]*+)*+"')

_QUOTED_TSV = (
    "the fields are quoted as in a csv file, but a .tsv is read without quotes (a quotation mark is a character of a "
    "text). Call the file .csv, whose quotes are read and which may have tabs; or write it without quotes, in pandas: "
    "to_csv(path, sep='\\t', index=False, quoting=csv.QUOTE_NONE)"
)


def read_csv_rows(lines: Iterator[str]) -> Iterator[FileRow]:
    """Yield the rows of a csv file; those that cannot be read have a `fault`.

    Raises:
        LineError: A header that names no columns, or a quote after which no row can be told from the next.
    """
    start, header = _first_line(lines)
    if header is None:
        return
    separator = _separator(header, start)
    recent: list[str] = []
    reader = csv.reader(_remembered(chain([header], lines), recent), delimiter=separator, strict=True)
    limit = csv.field_size_limit(sys.maxsize)
    names: list[str] = []
    try:
        while True:
            line, cells, fault = start + reader.line_num, [], None
            recent.clear()
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fault = _quote_fault(recent, line, separator, str(error))
            if not names:
                if fault:
                    raise LineError(line, fault)
                names = _checked_names(cells, line)
            elif fault or cells:
                yield _row(line, names, cells, fault or _count_fault(cells, names, separator))
    finally:
        csv.field_size_limit(limit)


def read_tsv_rows(lines: Iterator[str]) -> Iterator[FileRow]:
    """Yield the rows of a tsv file, quotation marks as they stand.

    Raises:
        LineError: A header that names no columns, or fields that are quoted as in a csv file.
    """
    start, header = _first_line(lines)
    if header is None:
        return
    cells = header.rstrip("\r\n").split("\t")
    if len(cells) == 1 and re.search("[,;|]", header):
        raise LineError(
            start, f"the header has no tab: {cells[0]!r}; a .tsv has tabs between its columns. Call the file .csv"
        )
    if all(_QUOTED.fullmatch(cell) for cell in cells):
        raise LineError(start, _QUOTED_TSV)
    names = _checked_names(cells, start)
    quoted, unquoted = 0, False
    for number, line in enumerate(lines, start=start + 1):
        line = line.rstrip("\r\n")
        if not line:
            continue
        cells = line.split("\t")
        fault = _count_fault(cells, names, "\t")
        if '"' in line:
            quoted = quoted or (number if any(_is_csv_cell(cell) for cell in cells) else 0)
            unquoted = unquoted or any('"' in cell and not _QUOTED.fullmatch(cell) for cell in cells)
            if fault and any(cell.startswith('"') for cell in cells):
                fault += f". Or {_QUOTED_TSV}"
        yield _row(number, names, cells, fault)
    # One field with a quote that no csv file could hold says that quotes are characters here.
    if quoted and not unquoted:
        raise LineError(quoted, _QUOTED_TSV)


def _is_csv_cell(cell: str) -> bool:
    return '""' in cell[1:-1] and _QUOTED.fullmatch(cell) is not None


def _first_line(lines: Iterator[str]) -> tuple[int, str | None]:
    """The first line that is not blank, and its number."""
    return next(((number, line) for number, line in enumerate(lines, start=1) if line.strip()), (1, None))


def _remembered(lines: Iterator[str], recent: list[str]) -> Iterator[str]:
    for line in lines:
        recent.append(line)
        yield line


def _separator(header: str, line: int) -> str:
    def columns(separator: str) -> int:
        return len(next(csv.reader([header], delimiter=separator)))

    if columns(",") > 1:
        return ","
    others = [separator for separator in _OTHER_SEPARATORS if columns(separator) > 1]
    if len(others) > 1:
        raise LineError(
            line,
            f"the header {header.strip()!r} has no comma, and its columns could be parted by "
            f"{' or '.join(map(repr, others))}. Write commas between the columns",
        )
    return others[0] if others else ","


def _checked_names(cells: Sequence[str], line: int) -> list[str]:
    """The columns' names. An empty first one is the index that pandas writes."""
    names = [_INDEX_COLUMN if not cells[0] and len(cells) > 1 else cells[0], *cells[1:]]
    for number, name in enumerate(names, start=1):
        if not name.strip():
            raise LineError(
                line,
                f"column {number} of {len(names)} has no name in the header ({', '.join(map(repr, cells))}). Expected "
                "the columns' names in the first line; write one, or remove the column",
            )
        if name in names[: number - 1]:
            raise LineError(line, f"the header names two columns {name!r}. Name them apart")
    return names


def _row(line: int, names: Sequence[str], cells: Sequence[str], fault: str | None) -> FileRow:
    if fault:
        return FileRow(line, {}, fault)
    return FileRow(line, {name: cell or None for name, cell in zip(names, cells)})


def _count_fault(cells: Sequence[str], names: Sequence[str], separator: str) -> str | None:
    if not cells or len(cells) == len(names):
        return None
    advice = ""
    if len(cells) > len(names):
        advice = (
            ". A .tsv has no tabs inside a field"
            if separator == "\t"
            else f'. A field that holds {separator!r} stands in quotes: "a{separator} b"'
        )
    return f"{len(cells)} fields; expected {len(names)}, as the header has ({', '.join(names)}){advice}"


def _quote_fault(recent: Sequence[str], line: int, separator: str, reason: str) -> str:
    """Return what is wrong with the quotes of one line; of several lines it is not known which rows they hold."""
    text = "".join(recent)
    field = re.compile(
        rf'(?:{_QUOTED.pattern}|(?!")[^{re.escape(separator)}\r\n]*+)(?:{re.escape(separator)}|\r?\n|\r)'
    )
    place = 0
    while match := field.match(text, place):
        place = match.end()
    first_line = line + len(re.findall(r"\r\n|\r|\n", text[:place]))
    expected = 'A quotation mark inside a quoted field is doubled: "so ""called"" tea"'
    if "unexpected end of data" in reason:
        raise LineError(first_line, f"a quoted field opens here and is not closed by the end of the file. {expected}")
    if len(recent) > 1:
        raise LineError(
            first_line,
            f"a quoted field opens here and ends within line {line + len(recent) - 1}: {reason}. {expected}",
        )
    return f"a quoted field ends within the line: {reason}. {expected}"
