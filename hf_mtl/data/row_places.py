"""The places of a split's rows, for messages about one of them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RowPlaces:
    """Names the rows of a split: by file and line where they were read from one.

    Args:
        split: The split.
        path: The file they were read from, None for rows in memory.
        lines: The line on which each row begins, from 1, blank lines counted; None for files without lines.
    """

    split: str
    path: str | None = None
    lines: Sequence[int] | None = None

    def name(self, index: int) -> str:
        """Return what a message calls the row at an index (from 0)."""
        if self.path is None:
            return f"{self.split} row {index}"
        if self.lines is None:
            return f"{self.path}, row {index + 1}"
        return f"{self.path}, line {self.lines[index]}"
