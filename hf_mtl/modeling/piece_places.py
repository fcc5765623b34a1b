"""The places of words and answers among the word pieces of a text."""

from collections.abc import Mapping, Sequence
from typing import Any

from .answer_decoding import word_places
from .words import in_word, is_hidden, visible_part, word_spans

# (first, past last) characters.
Place = tuple[int, int]


def words_of(row: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
    """Return the text of a row's words and where each stands in it; a row with only a text is split into words."""
    if row.get("tokens") is None:
        return row["text"], word_spans(row["text"])
    return " ".join(row["tokens"]), word_places(row["tokens"])


def piece_places(text: str, offsets: Sequence[Sequence[int]]) -> list[Place]:
    """Return the (first, past last) characters that each word piece of a text stands for, none of them hidden.

    Tokenizers count the blank before a word as its piece's (GPT-2), or leave out the first letter of a word behind a
    blank (RobBERT), which makes the offsets of a letter that stands alone empty. Blanks and invisible characters are
    no part of a place; a visible character that no piece has belongs to the next one of its word.
    """
    places, covered = [], 0
    for start, end in offsets:
        if start > covered:
            start = _first_left_over(text, start, end, covered)
        covered = max(covered, end)
        places.append(visible_part(text, start, end))
    return places


def _first_left_over(text: str, start: int, end: int, covered: int) -> int:
    """The first of the visible characters right before a piece that no piece has and that go with it."""
    while start > covered and not is_hidden(text[start - 1]):
        if start < end and in_word(text[start - 1]) != in_word(text[start]):
            break
        start -= 1
    return start


def first_pieces(words: Sequence[Place], places: Sequence[Place]) -> list[int]:
    """Return each word's first word piece, or -1 where a word has none (cut off, or dropped by the tokenizer).

    A piece that begins in an earlier word is a word's only where none begins in the word itself.

    Args:
        words: Where the words stand, in order.
        places: What the pieces stand for, of `piece_places`.
    """
    filled = [(first, past, index) for index, (first, past) in enumerate(places) if first < past]
    positions, current = [], 0
    for start, end in words:
        while current < len(filled) and filled[current][1] <= start:
            current += 1
        inner = current
        while inner < len(filled) and filled[inner][0] < start:
            inner += 1
        if inner < len(filled) and filled[inner][0] < end:
            positions.append(filled[inner][2])
        elif current < len(filled) and filled[current][0] < end:
            positions.append(filled[current][2])
        else:
            positions.append(-1)
    return positions


def words_within(words: Sequence[Place], places: Sequence[Place]) -> int:
    """Return how many words stand, at least in part, between the first and the last character of some pieces."""
    filled = [place for place in places if place[0] < place[1]]
    if not filled:
        return 0
    first, past = min(start for start, _ in filled), max(end for _, end in filled)
    return sum(start < past and end > first for start, end in words)


def answer_pieces(answers: Mapping[str, Sequence[Any]], text: str, places: Sequence[Place]) -> list[tuple[int, int]]:
    """Return the first and last piece of each accepted answer in order; an answer that no piece stands for has none.

    Args:
        answers: Their ``text`` and where it begins, ``answer_start``.
        text: What they stand in.
        places: What its pieces stand for, of `piece_places`.
    """
    spans = []
    for answer, begin in zip(answers["text"], answers["answer_start"]):
        start, end = visible_part(text, begin, begin + len(answer))
        overlapping = [index for index, (first, past) in enumerate(places) if max(first, start) < min(past, end)]
        if overlapping:
            spans.append((overlapping[0], overlapping[-1]))
    return spans
