"""The phrase banks of the support desk and how a template becomes a message.

A template is a line such as `I [returned|sent back] the {product}`: square brackets hold a choice, braces name a slot.
A slot value may hold patterns: `#` becomes a digit, `@` a capital letter.
"""

import random
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

import yaml

SPLITS = ("train", "validation")

CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)\}")


class Piece(NamedTuple):
    """A stretch of a message, with the slot it fills, or None for the template's own words."""

    text: str
    slot: str | None


Message = list[Piece]
Section = str | dict[str | float, "Section"]


class PhraseBank:
    """All wordings of one split, read from `<split>_phrases.yaml`."""

    def __init__(self, split: str) -> None:
        if split not in SPLITS:
            raise ValueError(f"Unknown split {split!r}; expected one of {SPLITS}.")
        text = resources.files(__package__).joinpath(f"{split}_phrases.yaml").read_text(encoding="utf-8")
        self.sections: dict[str, Section] = yaml.safe_load(text)

    def lines(self, *path: str | float) -> list[str]:
        """The templates or slot values under a path such as `("intent", "refund")`."""
        return list(_lines(self._section(*path)))

    def keys(self, *path: str | float) -> list[str | float]:
        """The names, or scores, under a path, in the order of the file."""
        section = self._section(*path)
        if isinstance(section, str):
            raise ValueError(f"{path} holds templates, not named groups; use lines{path}.")
        return list(section)

    def templates(self) -> set[str]:
        """Every template of the bank."""
        return {line for name in self.sections if name != "slots" for line in self.lines(name)}

    def slot_values(self) -> set[str]:
        """Every slot value of the bank."""
        return set(self.lines("slots"))

    def expand(self, template: str, rng: random.Random) -> Message:
        """Makes every choice of a template and fills its slots."""
        while CHOICE.search(template):
            template = CHOICE.sub(lambda match: rng.choice(match[1].split("|")), template)
        # Splitting on a pattern with one group puts the template's words at even places and slot names at odd ones.
        parts = SLOT.split(template)
        return [
            Piece(self._fill(part, rng), part) if place % 2 else Piece(_fill_patterns(part, rng), None)
            for place, part in enumerate(parts)
            if part
        ]

    def sentence(self, rng: random.Random, *path: str | float) -> Message:
        """A random template under a path, expanded."""
        return self.expand(rng.choice(self.lines(*path)), rng)

    def _fill(self, slot: str, rng: random.Random) -> str:
        return _fill_patterns(rng.choice(self.lines("slots", slot)), rng)

    def _section(self, *path: str | float) -> Section:
        section: Any = self.sections
        for name in path:
            section = section[name]
        return section


def text_of(message: Message) -> str:
    """The message as one string."""
    return "".join(piece.text for piece in message)


def join(sentences: list[Message]) -> Message:
    """Sentences one after the other, each beginning with a capital letter unless it follows a comma."""
    message: Message = []
    for sentence in sentences:
        if message:
            message.append(Piece(" ", None))
        first = sentence[0]
        message += [Piece(first.text[:1].upper() + first.text[1:], first.slot), *sentence[1:]]
    return message


def normalised(text: str) -> str:
    """Lower case, letters and digits only: two texts with the same form are the same message."""
    return re.sub(r"[\W_]", "", text.lower())


def _lines(section: Section) -> Iterator[str]:
    if isinstance(section, str):
        yield from section.splitlines()
    else:
        for part in section.values():
            yield from _lines(part)


def _fill_patterns(text: str, rng: random.Random) -> str:
    text = re.sub("#", lambda _: rng.choice("123456789"), text)
    return re.sub("@", lambda _: rng.choice("ABCDEFGHJKLMNPRSTUVWXYZ"), text)
