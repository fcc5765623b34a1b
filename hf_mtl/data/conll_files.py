"""Sentences of CoNLL files: one token a line, columns parted by tabs or blanks, a blank line after each sentence."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .text_lines import FileRow, LineError

# The columns of CoNLL-U by name.
CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

HOW_TO_NAME = (
    "columns: {tokens: 0, label: -1}, which are the numbers of the file's columns: 0 is the first, -1 the last; of a "
    ".conllu file also a name, e.g. {tokens: form, label: upos}"
)

DOCUMENT_START = "-DOCSTART-"

# "1-2" of words that a text writes as one, and "1.1" of words that it does not write.
EXTRA_ID = re.compile(r"\d+[-.]\d+")
FIRST_ID = re.compile(r"1(-\d+)?|0\.1")

# Comments of CoNLL-U and OntoNotes before a sentence; "# NN O" is a token.
NOTE = re.compile(r"# *[\w.:-]+( +[\w.:-]+)* *=|# *(newdoc|newpar|sent_id|text)\b|#(begin|end) document\b")


def token_columns(columns: Mapping[str, Any], is_conllu: bool) -> dict[str, int]:
    """Return the number of the file's column for each column that the task names.

    Args:
        columns: The task's column of ``tokens`` and of ``label``: a number, or the field's name where none is said.
        is_conllu: Whether the file is CoNLL-U, whose columns have names.

    Raises:
        ValueError: A column that is no number, or one that must be said.
    """
    defaults = {"tokens": 1} if is_conllu else {"tokens": 0, "label": -1}
    numbers: dict[str, int] = {}
    for field, column in columns.items():
        name = str(column)
        if re.fullmatch(r"-?\d+", name):
            numbers[name] = int(name)
        elif is_conllu and name.lower() in CONLLU_COLUMNS:
            numbers[name] = CONLLU_COLUMNS.index(name.lower())
        elif name == field and field in defaults:
            numbers[name] = defaults[field]
        else:
            raise ValueError(f"the column of {field} is {column!r}; expected {HOW_TO_NAME}")
    if len(numbers) < len(columns):
        raise ValueError(f"tokens and label are both column {next(iter(numbers))}; expected {HOW_TO_NAME}")
    return numbers


def read_sentences(lines: Iterator[str], numbers: Mapping[str, int], is_conllu: bool) -> Iterator[FileRow]:
    """Yield the sentences of a CoNLL file: for each of the columns a list of texts.

    Args:
        lines: The file's lines.
        numbers: The columns by the names that the result gives them, the tokens' first.
        is_conllu: Whether each line that begins with ``#`` before a sentence's first token is a comment.

    Raises:
        LineError: A line with another number of columns than the first, or an empty token or tag.
    """
    sentence: list[list[str]] = []
    begin, counts, places = 0, [], list(numbers.values())
    for number, cells in chain(_token_lines(lines, places, is_conllu), [(0, None)]):
        if cells is not None:
            begin = begin if sentence else number
            sentence.append(cells)
        elif sentence:
            columns = [list(column) for column in zip(*sentence)]
            counts.append(columns[0] == [str(count) for count in range(1, len(sentence) + 1)])
            yield FileRow(begin, dict(zip(numbers, columns)))
            sentence = []
    if counts and all(counts):
        raise LineError(
            begin, f"the tokens are 1, 2, 3, ..., the numbers of words. Say where they stand: {HOW_TO_NAME}"
        )


def _token_lines(
    lines: Iterator[str], places: Sequence[int], is_conllu: bool
) -> Iterator[tuple[int, list[str] | None]]:
    """The cells at `places` of each token's line, and None where a sentence ends."""
    width, has_tabs, has_ids, is_first = 0, False, is_conllu, True
    for number, line in enumerate(lines, start=1):
        has_tabs = has_tabs if width else "\t" in line
        cells = _cells(line, has_tabs)
        if cells[0] == DOCUMENT_START or not any(cells):
            is_first = True
            yield number, None
            continue
        if is_first and line.startswith("#") and (is_conllu or NOTE.match(line) or 0 < width != len(cells)):
            continue
        if not width:
            width = len(cells)
            has_ids = has_ids or (places[0] % width > 0 and FIRST_ID.fullmatch(cells[0]) is not None)
            _check_places(number, width, places)
        if len(cells) != width:
            raise LineError(
                number,
                f"{len(cells)} columns; expected {width}, as the first token has, parted by {_parting(has_tabs)}",
            )
        if has_ids and EXTRA_ID.fullmatch(cells[0]):
            continue
        is_first = False
        yield number, [_filled(cells, place, number) for place in places]


def _filled(cells: Sequence[str], place: int, line: int) -> str:
    if not cells[place]:
        raise LineError(line, f"column {place} is empty; expected a token and its tag on each line")
    return cells[place]


def _parting(has_tabs: bool) -> str:
    return "tabs" if has_tabs else "blanks"


def _cells(line: str, has_tabs: bool) -> list[str]:
    # Not `split()`, for which a no-break space inside a token would part it.
    line = line.strip(" \r\n")
    return [cell.strip(" ") for cell in line.split("\t")] if has_tabs else re.split("[ \t]+", line.strip("\t"))


def _check_places(line: int, width: int, places: Sequence[int]) -> None:
    for place in places:
        if not -width <= place < width or width == 1:
            raise LineError(
                line,
                f"{width} column{'s' if width > 1 else ''}, and the task reads column {place} too; say {HOW_TO_NAME}",
            )
    if len({place % width for place in places}) < len(places):
        raise LineError(line, f"{width} columns, of which tokens and label are the same one; say {HOW_TO_NAME}")
