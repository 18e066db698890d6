"""The bytes of a file, unpacked if it is a gzip archive, and its text line by line: in flat memory, up to a limit."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from services.ingest.sources.limits import CELL_BYTES, Limits, refused
from shared.files.signatures import sort_of

BUFFER = 2**18
BOMB_BYTES, BOMB_RATIO = 2**30, 250
"""An archive that unpacks to so much, and to so many times its size, is no text: rows that are much alike reach 50."""


class Unpacked(io.RawIOBase):
    """A file that is unpacked while it is read. `share` is how much of it is read, from 0 to 1."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self._file = path.open("rb")
        self._size = max(path.stat().st_size, 1)
        self.packed = sort_of(self._file.read(2)) == "gzip"
        self._file.seek(0)
        self._source: IO[bytes] | gzip.GzipFile = gzip.GzipFile(fileobj=self._file) if self.packed else self._file
        self._left = limits.unpacked_bytes
        self._limit = limits.unpacked_bytes

    @property
    def share(self) -> float:
        return min(1.0, self._file.tell() / self._size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._source.read(len(buffer))
        except (OSError, EOFError, zlib.error) as error:
            if not self.packed:
                raise
            raise refused(f"The gzip archive is damaged or ends too early ({error}); pack it again.") from None
        self._left -= len(data)
        if self._left < 0:
            raise refused(
                f"The file unpacks to more than {self._limit / 2**30:g} GiB; drop it in several parts, or raise "
                "TUNESTREAM_INGEST__MAX_UNPACKED_BYTES."
            )
        read = self._limit - self._left
        if self.packed and read > BOMB_BYTES and read > BOMB_RATIO * self._size:
            raise refused(
                f"The archive unpacks to more than {BOMB_RATIO} times its size, which no text does; drop the file "
                "without packing it if it is a dataset."
            )
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        self._file.close()
        super().close()


def opened(path: Path, limits: Limits) -> tuple[Unpacked, io.BufferedReader]:
    """The unpacked bytes of a file, and a buffer around them, which closes them."""
    unpacked = Unpacked(path, limits)
    return unpacked, io.BufferedReader(unpacked, BUFFER)


def head_of(path: Path, limits: Limits, size: int) -> bytes:
    """The first bytes of a file, unpacked."""
    _, buffer = opened(path, limits)
    with buffer:
        return buffer.read(size)


def _text(buffer: IO[bytes], encoding: str) -> io.TextIOWrapper:
    # what is no text in the encoding is kept, so that its row can be left out
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    return io.TextIOWrapper(buffer, encoding=encoding, errors=errors, newline="")


def pieces(buffer: IO[bytes], encoding: str) -> Iterator[str]:
    """A text in pieces."""
    text = _text(buffer, encoding)
    while piece := text.read(BUFFER):
        yield piece


def lines(buffer: IO[bytes], encoding: str) -> Iterator[str]:
    """The lines of a text with their ends.

    Raises:
        InputError: one is too long.
    """
    text = _text(buffer, encoding)
    number = 0
    while line := text.readline(CELL_BYTES + 1):
        number += 1
        if len(line) > CELL_BYTES:
            raise refused(
                f"Line {number:,} is longer than {CELL_BYTES // 2**20} MiB; put every row on a line of its own."
            )
        yield line
