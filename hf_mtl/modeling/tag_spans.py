"""The one reader of tagged spans, for answers, metrics and checks: BIO, BIOES, BILOU, BMES and IO tags.

`SpanTags.of` says by all tags of a task whether they mark spans and how they are spelled:

- ``B-PER``, or ``PER-B``, ``B_PER``, ``b-per``, and ``B`` alone where there are no types: B begins a span, I (or M) is
  inside, E (or L) ends it, S (or U, W) is a span of one word;
- ``PER`` beside ``O``: neighbours of one type are one span;
- ``B:PER``, ``BPER`` beside ``IPER``, or ``E-mail`` with no B or I anywhere: letters of a scheme or parts of names,
  which nobody can tell; they mark none, and all of them are odd;
- all else (NOUN, VERB) marks none.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

_OUTSIDE = "O"
# The type of a span whose tags name none.
_NO_TYPE = "_"
# A letter before or behind any separator.
_LETTER_FIRST = re.compile(r"([A-Za-z])[\W_].+", re.DOTALL)
_LETTER_LAST = re.compile(r".+[\W_]([A-Za-z])", re.DOTALL)

# Letters by what they say of a word: of a span of several words its beginning, inside and end, or a whole span.
_SCHEMES: tuple[dict[str, str], ...] = (
    {"B": "B", "I": "I", "E": "E", "S": "S"},
    {"B": "B", "I": "I", "L": "E", "U": "S"},
    {"B": "B", "M": "I", "E": "E", "S": "S"},
    {"B": "B", "M": "I", "E": "E", "W": "S"},
)


class Span(NamedTuple):
    """A span of words."""

    label: str
    first: int
    last: int


class _TagParts(NamedTuple):
    """The two parts of a tag: a letter and a type."""

    letter: str
    label: str


_NOTHING = _TagParts(_OUTSIDE, "")


def _letter_first(tag: str) -> _TagParts:
    letter, _, label = tag.partition("-")
    return _TagParts(letter, label or _NO_TYPE)


def _lower_case(tag: str) -> _TagParts:
    letter, label = _letter_first(tag)
    return _TagParts(letter.upper(), label)


def _letter_last(tag: str) -> _TagParts:
    label, _, letter = tag.rpartition("-")
    return _TagParts(letter, label)


def _underscore(tag: str) -> _TagParts:
    letter, _, label = tag.partition("_")
    return _TagParts(letter, label)


def _underscore_last(tag: str) -> _TagParts:
    label, _, letter = tag.rpartition("_")
    return _TagParts(letter, label)


# Those but the first are read where a B is among the letters.
_SPELLINGS: tuple[Callable[[str], _TagParts], ...] = (
    _letter_first,
    _lower_case,
    _letter_last,
    _underscore,
    _underscore_last,
)


class SpanTags:
    """The way in which the tags of a task mark spans.

    Args:
        parts: What each tag says, by tag; any other tag is outside.
        odd: Tags that say nothing of spans, beside others that do; all of them where none can be told.
    """

    def __init__(self, parts: dict[str, _TagParts], odd: Sequence[str] = ()) -> None:
        self.parts = parts
        self.odd = tuple(odd)

    @classmethod
    def of(cls, tags: Iterable[str], are_all: bool = True) -> "SpanTags | None":
        """Return how tags mark spans, or None where they mark none.

        Args:
            tags: The tags.
            are_all: Whether these are all tags of a task, of which one must begin spans or be inside; those of some
                rows need not.
        """
        return _span_tags(tuple(dict.fromkeys(tags)), are_all)

    def spans(self, tags: Sequence[str]) -> list[Span]:
        """Return the spans that the tags of a row's words mark, as conlleval and seqeval's default read them.

        A word inside that continues no span of its type begins one.
        """
        spans: list[Span] = []
        letter, label, first = _OUTSIDE, "", 0
        says = [self.parts.get(tag, _NOTHING) for tag in tags]
        for place, (next_letter, next_label) in enumerate([*says, _NOTHING]):
            if next_letter in ("I", "E") and letter in ("B", "I") and next_label == label:
                letter = next_letter
                continue
            if letter != _OUTSIDE:
                spans.append(Span(label, first, place - 1))
            letter, label, first = next_letter, next_label, place
        return spans

    def spelled_as_bioes(self, tag: str) -> str:
        """Return a tag in the first spelling: B-PER, I-PER, E-PER, S-PER or O; a tag that is odd as it is."""
        if tag in self.odd:
            return tag
        part = self.parts.get(tag)
        return f"{part.letter}-{part.label}" if part else _OUTSIDE


def spelled_as_bioes(tags: Sequence[str]) -> list[str]:
    """Return all tags of a task as `span_f1` reads them, which sees only some; those of no spans as they are."""
    span_tags = SpanTags.of(tags)
    return list(tags) if span_tags is None else [span_tags.spelled_as_bioes(tag) for tag in tags]


def outside_tag(tags: Sequence[str]) -> str:
    """Return the tag of a word that belongs to no span, of all tags of a task; the first where none says that."""
    return next((tag for tag, plain in zip(tags, spelled_as_bioes(tags)) if plain == _OUTSIDE), tags[0])


@lru_cache(maxsize=1024)
def _span_tags(tags: tuple[str, ...], are_all: bool) -> SpanTags | None:
    inside = [tag for tag in tags if tag != _OUTSIDE]
    if not inside:
        return SpanTags({})
    for spelling in _SPELLINGS:
        parts = _read(inside, spelling)
        if parts is not None and not (are_all and {"B", "I"}.isdisjoint(spelling(tag).letter for tag in parts)):
            return SpanTags(parts)
    # A letter of a scheme before a hyphen is no accident; a tag that does not fit leaves the others spans.
    best = max(([tag for tag in inside if _fits(tag, letters)] for letters in _SCHEMES), key=len)
    if any(tag[0] in "BI" for tag in best):
        return SpanTags(_read(best, _letter_first) or {}, [tag for tag in inside if tag not in best])
    if _may_mark_spans(inside):
        return SpanTags({}, inside)
    return SpanTags({tag: _TagParts("I", tag) for tag in inside}) if _OUTSIDE in tags else None


def _may_mark_spans(tags: Sequence[str]) -> bool:
    """Return whether letters of a scheme may be meant by tags that no spelling reads."""
    for place in (_LETTER_FIRST, _LETTER_LAST):
        letters = [match[1] for tag in tags if (match := place.fullmatch(tag))]
        for scheme in _SCHEMES:
            in_scheme = [letter for letter in letters if letter.upper() in scheme]
            are_all = len(in_scheme) == len(tags)
            if (are_all or len(in_scheme) > 1) and not {"B", "b", "I"}.isdisjoint(in_scheme):
                return True
            if are_all and place is _LETTER_FIRST and scheme.keys() >= set(in_scheme):
                return True
    behind_b, behind_i = ({tag[1:] for tag in tags if tag[:1] in letters} for letters in ("B", "IM"))
    return bool((behind_b & behind_i) - {""})


def _fits(tag: str, letters: dict[str, str]) -> bool:
    return tag[:1] in letters and tag[1:2] == "-"


def _read(tags: Sequence[str], spelling: Callable[[str], _TagParts]) -> dict[str, _TagParts] | None:
    """Return what each tag says in a spelling, where all are of one scheme and none is likely to be something else."""
    parts = {tag: spelling(tag) for tag in tags if not (spelling is _lower_case and tag == _OUTSIDE.lower())}
    sure = spelling is _letter_first and all("-" in tag for tag in tags)
    likely = {"B", "I"} if spelling is _letter_first else {"B"}
    if not parts or not (sure or likely & {part.letter for part in parts.values()}):
        return None
    for letters in _SCHEMES:
        if all(part.letter in letters and part.label for part in parts.values()):
            return {tag: _TagParts(letters[part.letter], part.label) for tag, part in parts.items()}
    return None
