"""Words of every script: in answers, in the linear baseline, and where inputs are compared.

A word is a letter, digit or underscore with all letters, digits and combining marks (vowel signs, points, accents)
that follow; characters without a form of their own (joiners, soft hyphens) do not end it. Any other visible character
is a word of its own, with its marks. Scripts that put no blanks between words (Chinese, Japanese, Thai) are not
divided.
"""

import re
import unicodedata
from bisect import bisect_right


def _marks() -> str:
    """The combining marks as the inside of a character class."""
    ranges: list[list[int]] = []
    # The planes that hold marks; to ask for every character of all planes takes long.
    for code in (*range(0x300, 0x20000), *range(0xE0100, 0xE01F0)):
        if unicodedata.category(chr(code)).startswith("M"):
            if not ranges or ranges[-1][1] != code - 1:
                ranges.append([code, code])
            ranges[-1][1] = code
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)


MARKS = _marks()

# Characters without a form of their own. The zero-width space is no joiner: it is there to end words.
_JOINERS = "\u00ad\u061c\u180e\u200c-\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0001-\U000e007f"
_INVISIBLE = f"{_JOINERS}\u200b"

# Scripts in which a run of letters is no single word, or (Hangul) a word with its particles.
_RUN_ON = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u19e0-\u19ff\u1a20-\u1aaf\u2e80-\u30ff\u3100-\u9fff"
    "\ua960-\ua97f\ua9e0-\ua9ff\uaa60-\uaadf\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U0001b000-\U0001b16f"
    "\U00020000-\U0003ffff"
)

# A joiner at a word's end belongs to it behind a mark only, where it changes the form of the letter (Malayalam).
_INSIDE = rf"[{MARKS}]+[\u200c\u200d]?|[{_JOINERS}]+(?=[\w{MARKS}])"
_SIGN = rf"[^\w\s{_INVISIBLE}]"
_SIGN_WITH_MARKS = rf"{_SIGN}(?:[{MARKS}]|\u200d{_SIGN})*"

_LETTERS = re.compile(rf"\w+(?:(?:{_INSIDE})+\w*)*")
WORD = re.compile(rf"{_LETTERS.pattern}|{_SIGN_WITH_MARKS}")
# What an answer may begin and end with: a word, of the scripts above a letter.
_UNIT = re.compile(rf"[{_RUN_ON}](?:{_INSIDE})*|(?![{_RUN_ON}])\w(?:(?![{_RUN_ON}])\w|{_INSIDE})*|{_SIGN_WITH_MARKS}")
_HIDDEN = re.compile(rf"[\s{_INVISIBLE}]")
_NOT_LETTER = re.compile(r"[\W_]+")
_UNLETTERED = re.compile(rf"[{_INVISIBLE}_]")
_IN_WORD = re.compile(rf"[\w{MARKS}]")


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return where the words of a text stand, as (first, past last) characters."""
    return [match.span() for match in WORD.finditer(text)]


def letters_of(text: str) -> str:
    """Return the letters and digits of a text with their marks, lower case, in one form of composed characters."""
    if text.isascii():
        return _NOT_LETTER.sub("", text.lower())
    words = _LETTERS.findall(unicodedata.normalize("NFC", text.lower()))
    return _UNLETTERED.sub("", "".join(words))


def is_hidden(character: str) -> bool:
    """Return whether a character is a blank or has no form of its own."""
    return _HIDDEN.match(character) is not None


def in_word(character: str) -> bool:
    """Return whether a character is a letter, digit, underscore or mark."""
    return _IN_WORD.match(character) is not None


def visible_part(text: str, start: int, end: int) -> tuple[int, int]:
    """Return a span without the blanks and invisible characters at its ends; (start, start) where nothing is left."""
    first, past = start, end
    while first < past and is_hidden(text[first]):
        first += 1
    while past > first and is_hidden(text[past - 1]):
        past -= 1
    return (first, past) if first < past else (start, start)


class WholeWords:
    """The beginnings and ends of a text's words, to widen spans to; of a hidden span nothing is left.

    Args:
        text: The text. Where its script runs words together, a letter is a word.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.spans = [match.span() for match in _UNIT.finditer(text)]
        self.starts = [start for start, _ in self.spans]

    def beginning(self, start: int) -> int:
        """Return where the word begins that holds the first visible character from `start` on."""
        while start < len(self.text) and is_hidden(self.text[start]):
            start += 1
        return self._word_at(start)[0]

    def ending(self, end: int) -> int:
        """Return where the word ends that holds the last visible character before `end`."""
        while end > 0 and is_hidden(self.text[end - 1]):
            end -= 1
        return self._word_at(end - 1)[1]

    def _word_at(self, place: int) -> tuple[int, int]:
        """The word that holds a character; for one that is in none, the character."""
        index = bisect_right(self.starts, place) - 1
        if index >= 0 and place < self.spans[index][1]:
            return self.spans[index]
        return place, place + 1
