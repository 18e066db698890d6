"""Reads a file as numbered lines of bytes, in constant memory whatever its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from services.validate.domain.findings import Finding
from services.validate.domain.sniff import HEAD_BYTES, sniff

CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Source:
    """A file of rows; `name` is the user's name for it."""

    path: Path
    name: str


class Reader:
    """Iterates over `(line number from 1, bytes without the line end)`. A line that is too long is a Finding instead of
    bytes. `position` is the number of bytes read so far, `size` that of the file.
    """

    def __init__(self, path: Path, max_line_bytes: int) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.position = 0
        self._limit = max_line_bytes

    def sniff(self) -> Finding | None:
        """Why the file should not be read at all, or None."""
        with self.path.open("rb") as file:
            return sniff(file.read(HEAD_BYTES))

    def __iter__(self) -> Iterator[tuple[int, bytes | Finding]]:
        self.position = 0
        number = 0
        with self.path.open("rb", buffering=CHUNK) as file:
            # one byte more than is allowed, and two for the line end
            while raw := file.readline(self._limit + 3):
                number += 1
                self.position += len(raw)
                whole = raw.endswith(b"\n")
                if number == 1:
                    raw = raw.removeprefix(_BOM)
                raw = raw.rstrip(b"\r\n")
                if len(raw) <= self._limit:
                    yield number, raw
                    continue
                del raw  # frees up to 16 MiB before the rest of the line is skipped
                while not whole and (rest := file.readline(CHUNK)):
                    self.position += len(rest)
                    whole = rest.endswith(b"\n")
                yield number, self._too_long()

    def _too_long(self) -> Finding:
        limit = f"{self._limit / 2**20:g} MiB" if self._limit >= 2**20 else f"{self._limit} bytes"
        return Finding(
            "line_too_long",
            "",
            f"the line is longer than {limit}",
            "split the example, put one example on each line, or raise TUNESTREAM_VALIDATION__MAX_LINE_BYTES",
        )
