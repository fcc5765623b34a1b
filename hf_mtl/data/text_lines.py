"""The lines of a text file, packed or not, in UTF-8 or with a byte-order mark; anything else is refused by name."""

import codecs
import gzip
import io
import shlex
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from ..modeling.errors import InputError

# The longer marks first: that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class FileRow(NamedTuple):
    """A row of a text file.

    Args:
        line: The line on which it begins, from 1, blank lines counted.
        values: Its values by column; empty where it could not be read.
        fault: Why it could not be read.
    """

    line: int
    values: dict[str, Any]
    fault: str | None = None


class LineError(ValueError):
    """An error that makes a file unreadable from one of its lines on.

    Args:
        line: The line, from 1.
        reason: What stands there, what was expected and what to write.
    """

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def read_lines(path: Path) -> Iterator[str]:
    """Yield a text file's lines, their ends (LF, CRLF or CR) included; a byte-order mark is skipped.

    Raises:
        InputError: The file is no text, or its bytes are not of its encoding.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            start = stream.peek(4)
            encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
            # Universal lines: `str.splitlines` would also end one at separators that may stand inside a text.
            text = io.TextIOWrapper(cast(BinaryIO, stream), encoding=encoding, newline="")
            for number, line in enumerate(text, start=1):
                if "\0" in line:
                    raise InputError(f"{path}, line {number}: a NUL byte, {_expected(path, 'utf-16')}")
                yield line
    except UnicodeDecodeError:
        raise InputError(_first_odd_byte(path, encoding.removesuffix("-sig"))) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be unpacked: {error}. Expected what gzip writes, whole.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _first_odd_byte(path: Path, encoding: str) -> str:
    content = gzip.decompress(path.read_bytes()) if path.suffix.lower() == ".gz" else path.read_bytes()
    try:
        content.decode(encoding)
    except UnicodeDecodeError as error:
        before = content[: error.start].decode(encoding)
        line = 1 + before.replace("\r\n", "\n").replace("\r", "\n").count("\n")
        byte = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        named = f" (its byte-order mark says {encoding.upper()})" if encoding != "utf-8" else ""
        return f"{path}, line {line}: {byte} is no {encoding.upper()}{named}, {_expected(path, 'latin1')}"
    raise AssertionError("decoding the same bytes again failed to fail")


def _expected(path: Path, likely: str) -> str:
    plain = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    command = (
        f"iconv -f {likely} -t utf-8 {shlex.quote(str(plain))} > {shlex.quote(f'{plain.stem}_utf8{plain.suffix}')}"
    )
    unpack = f"gunzip {shlex.quote(str(path))}; " if plain != path else ""
    return f"expected text in UTF-8. If it was written in another encoding, such as {likely}, type: {unpack}{command}"
