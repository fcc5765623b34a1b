"""Columns as their values show them: texts, names of classes, numbers, lists, or what numbers the rows."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..modeling.modalities import FILE_ENDINGS

_WHOLE = re.compile(r"[-+]?\d+")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d?-\d\d?([T ].*)?|\d\d?[./]\d\d?[./]\d{2,4}.*|https?://\S*")
# Names whose columns number, date or describe rows and are neither read nor answered.
_NUMBERING = re.compile(
    r"(?:.*[_\W])?(id|ids|idx|index|uid|uuid|guid|url|date|time|timestamp|lang|source)|unnamed: ?0"
)
# Texts have so many words on average, at least; names of classes are fewer than this share of the rows.
_WORDS_OF_TEXT = 2.5
_MOST_NAMES = 0.2
_MOST_CLASSES = 100
_SHOWN = 8
# How files of images and of sounds begin.
_BEGINNINGS = {
    "image": (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\x00", b"MM\x00*"),
    "audio": (b"fLaC", b"OggS", b"ID3", b"\xff\xfb"),
}
_RIFF = {b"WEBP": "image", b"WAVE": "audio"}


@dataclass(frozen=True)
class ColumnProfile:
    """A column of a data set, and some of its values.

    Args:
        name: Its name.
        values: The values of the rows that were looked at, None for an empty one.
    """

    name: str
    values: Sequence[Any]

    @cached_property
    def present(self) -> list[Any]:
        """Values that are there."""
        return [value for value in self.values if value is not None and value != ""]

    @cached_property
    def distinct(self) -> list[Any]:
        """Different values in the order in which they come; lists are written as texts."""
        return list(dict.fromkeys(str(value) if isinstance(value, (list, dict)) else value for value in self.present))

    @cached_property
    def is_whole(self) -> bool:
        """Tell whether every value is a whole number."""
        return self._all(
            lambda value: _WHOLE.fullmatch(str(value)) is not None and not isinstance(value, (list, dict))
        )

    @cached_property
    def is_number(self) -> bool:
        """Tell whether every value is a number, and no truth value."""
        return self._all(
            lambda value: not isinstance(value, (bool, list, dict)) and bool(_NUMBER.fullmatch(str(value)))
        )

    @cached_property
    def is_list(self) -> bool:
        """Tell whether every value is a list."""
        return self._all(lambda value: isinstance(value, list))

    @cached_property
    def medium(self) -> str | None:
        """Modality of the files that all values are: image or audio; None of anything else."""
        kinds = {_medium(value) for value in self.present}
        return kinds.pop() if len(kinds) == 1 else None

    @cached_property
    def is_numbering(self) -> bool:
        """Tell whether it numbers, dates or describes the rows, by its name or by its values."""
        looks_so = self._all(lambda value: isinstance(value, str) and _DATE.fullmatch(value.strip()) is not None)
        counts_on = self.is_whole and len(self.present) > 2 and self.present == self.distinct and self._is_sorted()
        return _NUMBERING.fullmatch(self.name.lower()) is not None or looks_so or counts_on

    def _is_sorted(self) -> bool:
        numbers = [int(value) for value in self.present]
        return numbers == sorted(numbers)

    @cached_property
    def is_text(self) -> bool:
        """Tell whether it holds texts: several words on average, or hardly a value twice."""
        if self.is_numbering or self.is_number or not self._all(lambda value: isinstance(value, str)):
            return False
        words = sum(len(value.split()) for value in self.present) / len(self.present)
        return not self.is_names or (words >= _WORDS_OF_TEXT and len(self.distinct) > _MOST_CLASSES)

    @cached_property
    def is_names(self) -> bool:
        """Tell whether it holds names of classes: truth values, or few texts that come again and again."""
        if self.is_numbering or self.is_number or not self._all(lambda value: isinstance(value, (str, bool))):
            return False
        most = max(2, min(_MOST_CLASSES, int(_MOST_NAMES * len(self.present))))
        return 1 < len(self.distinct) <= most

    def shown(self) -> str:
        """Return the first of its different values, as a comment shows them."""
        names = [str(value) for value in sorted(self.distinct, key=str)[:_SHOWN]]
        more = f" and {len(self.distinct) - _SHOWN} more" if len(self.distinct) > _SHOWN else ""
        return ", ".join(name if len(name) <= 30 else f"{name[:30]}…" for name in names) + more

    def _all(self, holds: Any) -> bool:
        return bool(self.present) and all(map(holds, self.present))


def _medium(value: Any) -> str | None:
    if isinstance(value, Mapping) and value.keys() == {"bytes", "path"}:
        value = value["bytes"] if value["bytes"] is not None else value["path"]
    if isinstance(value, bytes):
        begins = (kind for kind, beginnings in _BEGINNINGS.items() if value.startswith(beginnings))
        return _RIFF.get(value[8:12]) if value.startswith(b"RIFF") else next(begins, None)
    if not isinstance(value, str):
        return None
    return next((kind for kind, endings in FILE_ENDINGS.items() if value.lower().endswith(endings)), None)


def profiles_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, ColumnProfile]:
    """Return the columns of rows by name; empty ones are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    profiles = {name: ColumnProfile(name, [row.get(name) for row in rows]) for name in names}
    return {name: profile for name, profile in profiles.items() if profile.present}
