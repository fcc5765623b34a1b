"""Rows of JSON files: one object per line, or one list of objects."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from ..modeling.problem_types import input_fields
from .text_lines import FileRow, LineError

_INPUT_NAMES = set(input_fields())

_ONE_OBJECT_A_LINE = 'Expected one object per line, such as {"text": "...", "label": "..."}, or one list of them'

# How the files of SQuAD, articles of paragraphs of questions, become rows.
_SQUAD_ROWS = (
    "The articles of SQuAD hold `paragraphs`, and no rows; expected rows with question, context and answers. Write "
    "them in Python: [{'question': qa['question'], 'context': paragraph['context'], 'answers': qa['answers']} for "
    "article in json.load(open('FILE'))['data'] for paragraph in article['paragraphs'] for qa in paragraph['qas']], "
    "each by json.dumps as one line of a .jsonl; or read the data set of the Hub, `dataset: rajpurkar/squad`. Both "
    "need `columns: {label: answers}`"
)

_BLANKS = re.compile(r"[ \t\r\n]*")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class _RepeatedKey(ValueError):
    """A key that stands twice in one object, of which readers of JSON silently take the last."""


def read_json_rows(lines: Iterator[str]) -> Iterator[FileRow]:
    """Yield the rows of a JSON file; those that cannot be read have a `fault`.

    Raises:
        LineError: The file is one value that is no list of objects, or a list that cannot be read.
    """
    numbered: Iterator[tuple[int, str]] = enumerate(lines, start=1)
    start, first = next(((number, line) for number, line in numbered if line.strip()), (1, ""))
    if first.lstrip().startswith("["):
        yield from _list_rows("".join(chain([first], lines)), start)
        return
    head = _line_row(start, first) if first else None
    if head is None:
        return
    if head.fault and not first.rstrip().endswith("}"):
        rest = list(numbered)
        if rest:
            _refuse_one_object("".join([first, *(line for _, line in rest)]), start)
        numbered = iter(rest)
    second = next(((number, line) for number, line in numbered if line.strip()), None)
    if second is None and not head.fault:
        _refuse_wrapped(head.values, start)
    yield head
    for number, line in chain([second] if second else [], numbered):
        if line.strip():
            yield _line_row(number, line)


def _unrepeated(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKey(next(name for name in names if names.count(name) > 1))
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unrepeated)


def _line_row(number: int, line: str) -> FileRow:
    try:
        value = _DECODER.decode(line)
    except _RepeatedKey as error:
        return FileRow(number, {}, _repeated(error))
    except (ValueError, RecursionError) as error:
        return FileRow(number, {}, f"no valid JSON: {error}. {_ONE_OBJECT_A_LINE}")
    return _object_row(number, value, line)


def _object_row(number: int, value: Any, text: str) -> FileRow:
    if _is_article(value):
        return FileRow(number, {}, _SQUAD_ROWS)
    if not isinstance(value, dict):
        return FileRow(number, {}, f"{_shortened(value)} is no object. {_ONE_OBJECT_A_LINE}")
    # Only an escape can write half a pair, which no tokenizer reads and no file takes.
    if "\\u" in text and (half := _HALF_PAIR.search(json.dumps(value, ensure_ascii=False))):
        return FileRow(
            number, {}, f"\\u{ord(half.group()):04x} is half of a character (a surrogate). Write both halves"
        )
    return FileRow(number, value)


def _is_article(value: Any) -> bool:
    """Return whether a value is an article of SQuAD's files, which are no rows."""
    paragraphs = value.get("paragraphs") if isinstance(value, dict) else None
    return isinstance(paragraphs, list) and all(isinstance(item, dict) and "qas" in item for item in paragraphs)


def _list_rows(text: str, start: int) -> Iterator[FileRow]:
    """The elements of a list, each with the line on which it begins."""
    place, line = text.index("[") + 1, start

    def skip_blanks() -> None:
        nonlocal place, line
        end = _BLANKS.match(text, place).end()
        line += _line_ends(text[place:end])
        place = end

    skip_blanks()
    while text[place : place + 1] != "]":
        try:
            value, end = _DECODER.raw_decode(text, place)
        except _RepeatedKey as error:
            raise LineError(line, _repeated(error)) from None
        except (ValueError, RecursionError) as error:
            raise LineError(line, f"no valid JSON in a list of objects: {error}") from None
        yield _object_row(line, value, text[place:end])
        line += _line_ends(text[place:end])
        place = end
        skip_blanks()
        if text[place : place + 1] == ",":
            place += 1
            skip_blanks()
            if text[place : place + 1] == "]":
                raise LineError(line, "no valid JSON: a comma stands before the ']' of the list. Take it away")
        elif text[place : place + 1] != "]":
            raise LineError(line, f"no valid JSON: expected ',' or ']' in a list of objects; {_rest(text, place)}")
    place += 1
    skip_blanks()
    if place < len(text):
        raise LineError(line, f"the list of objects ends before this line; {_rest(text, place)}. {_ONE_OBJECT_A_LINE}")


def _line_ends(text: str) -> int:
    return len(re.findall(r"\r\n|\r|\n", text))


def _rest(text: str, place: int) -> str:
    return f"{text[place : place + 20]!r} follows" if place < len(text) else "the file ends"


def _repeated(error: _RepeatedKey) -> str:
    return f"the key {str(error)!r} stands twice in one object. Write it once"


def _shortened(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _refuse_one_object(text: str, line: int) -> None:
    """Refuse a file that is one object over several lines."""
    try:
        values = _DECODER.decode(text)
    except (ValueError, RecursionError):
        return
    if isinstance(values, dict):
        _refuse_wrapped(values, line)
        raise LineError(line, f"the file is one object over several lines. {_ONE_OBJECT_A_LINE}: jq -c . FILE")


def _refuse_wrapped(values: dict[str, Any], line: int) -> None:
    """Refuse a file whose one object is no row but holds the rows."""
    if values.keys() & _INPUT_NAMES:
        return
    for name, value in values.items():
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
            if _is_article(value[0]):
                raise LineError(line, _SQUAD_ROWS)
            raise LineError(
                line,
                f"the file is one object, whose rows stand under {name!r}. {_ONE_OBJECT_A_LINE}; write them so: "
                f"jq -c '.{name}[]' FILE > rows.jsonl",
            )
