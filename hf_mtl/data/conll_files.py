"""Sentences of CoNLL files: one token per line, columns parted by tabs or blanks, a blank line after each sentence."""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from .text_lines import FileRow, LineError

# The columns of CoNLL-U by name.
_CONLLU_COLUMNS = ("id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc")

HOW_TO_NAME = (
    "columns: {tokens: 0, label: -1}, which are the numbers of the file's columns: 0 is the first, -1 the last; of a "
    ".conllu file also a name, e.g. {tokens: form, label: upos}"
)

_DOCUMENT_START = "-DOCSTART-"

# "1-2" of words that a text writes as one, and "1.1" of words that it does not write.
_EXTRA_ID = re.compile(r"\d+[-.]\d+")
_FIRST_ID = re.compile(r"1(-\d+)?|0\.1")

# "# a note" may be a comment; "#wow O" is a token.
_HASH = re.compile(r"#(\s|$)")
# Comments of CoNLL-U and OntoNotes, however many columns they seem to have; "# NN O" is a token.
_NOTE = re.compile(r"# +[\w.:-]+( +[\w.:-]+)* *=|# +(newdoc|newpar|sent_id|text)\b")
_DOCUMENT_NOTE = re.compile(r"#(begin|end) document\b")


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
        elif is_conllu and name.lower() in _CONLLU_COLUMNS:
            numbers[name] = _CONLLU_COLUMNS.index(name.lower())
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
        is_conllu: Whether the file is CoNLL-U, in which each line that begins with ``#`` before a sentence's first
            token is a comment; elsewhere, those with a blank behind the ``#`` that are no token.

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
    head, model = _first_lines(lines, is_conllu)
    has_tabs, is_first, has_ids = "\t" in model, True, None
    width = len(_cells(model, has_tabs))
    for number, line in enumerate(chain(head, lines), start=1):
        cells = _cells(line, has_tabs)
        if cells[0] == _DOCUMENT_START or not any(cells):
            is_first = True
            yield number, None
            continue
        if is_first and _is_comment(line, is_conllu, is_token=len(cells) == width, has_tabs=has_tabs):
            continue
        if len(cells) != width:
            raise LineError(
                number,
                f"{len(cells)} columns; expected {width}, as the first token has, parted by {_parting(has_tabs)}",
            )
        if has_ids is None:
            _check_places(number, width, places)
            has_ids = is_conllu or _are_ids(cells, places)
        if has_ids and _EXTRA_ID.fullmatch(cells[0]):
            continue
        is_first = False
        yield number, [_filled(cells, place, number) for place in places]


def _first_lines(lines: Iterator[str], is_conllu: bool) -> tuple[list[str], str]:
    """The lines to the first that is surely a token's, and that one, or the best where all are like comments."""
    head, like_comment = [], ""
    for line in lines:
        head.append(line)
        if not line.strip() or line.startswith(_DOCUMENT_START):
            continue
        if not _is_comment(line, is_conllu, is_token=False, has_tabs=False):
            return head, line
        if not like_comment and not _is_comment(line, is_conllu, is_token=True, has_tabs="\t" in line):
            like_comment = line
    return head, like_comment


def _is_comment(line: str, is_conllu: bool, is_token: bool, has_tabs: bool) -> bool:
    """Return whether a line before a sentence is a comment.

    Args:
        line: The line.
        is_conllu: Whether every ``#`` begins one.
        is_token: Whether it has a token's columns.
        has_tabs: Whether tabs part those, which no comment has.
    """
    if is_conllu or _DOCUMENT_NOTE.match(line):
        return line.startswith("#")
    return _HASH.match(line) is not None and (not is_token or (not has_tabs and _NOTE.match(line) is not None))


def _are_ids(cells: Sequence[str], places: Sequence[int]) -> bool:
    """Return whether the first column of a first token numbers words as CoNLL-U does."""
    is_wide = len(cells) == len(_CONLLU_COLUMNS)
    return is_wide and places[0] % len(cells) > 0 and _FIRST_ID.fullmatch(cells[0]) is not None


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
