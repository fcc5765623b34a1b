"""The screen of a run: aligned tables, durations, and a status line that other lines do not break."""

import html
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

# Columns where nothing says how wide the screen is: a log file, a notebook.
_COLUMNS = 100
# Where no status line can stand, one is printed after so many seconds of silence.
_SILENCE = 60.0
# Least seconds between two states of a status line.
_REFRESH = 0.1


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return aligned lines, the first columns to the left and the others to the right.

    Args:
        header: The columns' names.
        rows: The cells.
        left: How many columns stand to the left.
    """
    widths = [max(len(row[index]) for row in [header, *rows]) for index in range(len(header))]
    ruled = [header, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            cell.ljust(width) if index < left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in ruled
    ]


def clock(seconds: float) -> str:
    """Return a duration as ``12:05`` or ``1:02:03``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rough_duration(seconds: float) -> str:
    """Return a rough time in the unit that suits it."""
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"about {seconds / size:.1f} {unit}"
    return f"about {seconds:.0f} s"


class Screen(ABC):
    """Lines that stay, and a status that is replaced."""

    @property
    def width(self) -> int:
        """Columns of a line."""
        return _COLUMNS

    @abstractmethod
    def write(self, *lines: str) -> None:
        """Print lines that stay."""

    @abstractmethod
    def set_status(self, text: str, share: float) -> None:
        """Replace the status.

        Args:
            text: What is being done.
            share: How much of the whole is done, in [0, 1].
        """

    @abstractmethod
    def close(self) -> None:
        """Take the status away."""


class PlainScreen(Screen):
    """A log file, a pipe, or a terminal without a status line: after a long silence the status is a line of its own.

    Args:
        silence: Seconds of silence after which the status is printed.
    """

    def __init__(self, silence: float = _SILENCE) -> None:
        self.silence, self.written = silence, time.monotonic()

    @property
    def width(self) -> int:
        """Columns of a line."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else _COLUMNS

    def write(self, *lines: str) -> None:
        """Print lines."""
        print("\n".join(lines), flush=True)
        self.written = time.monotonic()

    def set_status(self, text: str, share: float) -> None:
        """Print the status if nothing was printed for long."""
        if time.monotonic() - self.written >= self.silence:
            self.write(text)

    def close(self) -> None:
        """Do nothing: no line is replaced."""


class TerminalScreen(Screen):
    """A terminal, with a bar below its lines."""

    def __init__(self) -> None:
        form = "{desc} |{bar}|"
        self.bar: Any = tqdm(total=1.0, bar_format=form, dynamic_ncols=True, leave=False, mininterval=0)
        self.refreshed = 0.0

    @property
    def width(self) -> int:
        """Columns of a line."""
        return shutil.get_terminal_size().columns

    def write(self, *lines: str) -> None:
        """Print lines above the bar."""
        tqdm.write("\n".join(lines), file=sys.stdout)
        sys.stdout.flush()

    def set_status(self, text: str, share: float) -> None:
        """Replace the text before the bar."""
        if time.monotonic() - self.refreshed >= _REFRESH:
            self.bar.n = share
            self.bar.set_description_str(text)
            self.refreshed = time.monotonic()

    def close(self) -> None:
        """Take the bar away."""
        self.bar.close()


class NotebookScreen(Screen):
    """A notebook's output, with a bar above its lines."""

    def __init__(self) -> None:
        from IPython.display import display

        self.handle: Any = display(self._page("", 0.0), display_id=True)
        self.refreshed = 0.0

    @staticmethod
    def _page(text: str, share: float) -> Any:
        from IPython.display import HTML

        return HTML(
            f'<progress value="{share:.4f}" max="1" style="width: 16em"></progress> <code>{html.escape(text)}</code>'
        )

    def write(self, *lines: str) -> None:
        """Print lines below the bar."""
        print("\n".join(lines), flush=True)

    def set_status(self, text: str, share: float) -> None:
        """Replace the bar and its text."""
        if time.monotonic() - self.refreshed >= _REFRESH:
            self.handle.update(self._page(text, share))
            self.refreshed = time.monotonic()

    def close(self) -> None:
        """Take the bar away."""
        from IPython.display import HTML

        self.handle.update(HTML(""))


def open_screen(is_live: bool, is_notebook: bool) -> Screen:
    """Return the screen that suits where the program runs.

    Args:
        is_live: Whether a status line is wanted at all.
        is_notebook: Whether a notebook shows it.
    """
    if is_live and is_notebook:
        return NotebookScreen()
    return TerminalScreen() if is_live and sys.stderr.isatty() else PlainScreen()


__all__ = ["NotebookScreen", "PlainScreen", "TerminalScreen", "clock", "open_screen", "rough_duration", "table"]
