"""Reads a file as numbered lines of bytes, in constant memory whatever its size."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from services.validate.domain.findings import Finding
from services.validate.domain.sniff import HEAD_BYTES, sniff

CHUNK = 2**19
_BOM = b"\xef\xbb\xbf"
_DENSE = 16  # bytes a line on average: below, most lines are probably blank
_SPACE = re.compile(rb"\s*")
_TO_BLANK = re.compile(rb"\n\s*\n")


@dataclass(frozen=True)
class Source:
    """A file of rows; `name` is the user's name for it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of a file, without their line ends. A line that is too long is a Finding. `first`: the number of the
    first line, from 1. `data`: the bytes that hold the lines. `blank`: that many blank lines, and no others."""

    first: int
    lines: Sequence[bytes | Finding]
    data: bytes = b""
    blank: int = 0


class Reader:
    """Reads the blocks of a file. `position` is the number of bytes read so far, `size` that of the file."""

    def __init__(self, path: Path, max_line_bytes: int) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.position = 0
        self.lines = 0
        """Lines read so far."""
        self._limit = max_line_bytes

    def sniff(self) -> Finding | None:
        """Why the file should not be read at all, or None."""
        with self.path.open("rb") as file:
            return sniff(file.read(HEAD_BYTES))

    def rows(self) -> Iterator[tuple[int, bytes | Finding]]:
        """Line number and bytes of every line that is not blank."""
        for block in self.blocks():
            for number, line in enumerate(block.lines, start=block.first):
                if isinstance(line, Finding) or line.strip():
                    yield number, line

    def blocks(self) -> Iterator[Block]:
        """The whole file, from its beginning."""
        self.position = self.lines = 0
        begun: list[bytes] = []  # of a line whose end is not read yet
        held, skipping = 0, False
        with self.path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK):
                self.position += len(chunk)
                begin, end = 0, chunk.rfind(b"\n") + 1
                if skipping and end:
                    begin, skipping = chunk.find(b"\n") + 1, False
                    yield self._too_long()
                if begin < end:
                    whole = chunk[begin:end]
                    yield from self._read(b"".join((*begun, whole)) if begun else whole)
                if end:
                    begun, held = [], 0
                if end < len(chunk) and not skipping:
                    begun.append(chunk[end:])
                    held += len(chunk) - end
                    if held > self._limit + CHUNK:  # more than any line end may add
                        begun, skipping = [], True
        if skipping:
            yield self._too_long()
        elif begun:
            yield from self._read(b"".join(begun))

    def _read(self, data: bytes) -> Iterator[Block]:
        """Blocks of whole lines."""
        if not self.lines:
            data = data.removeprefix(_BOM)
        if data.isspace():
            yield self._blank(data.count(b"\n") + (not data.endswith(b"\n")))
        elif len(data) < data.count(b"\n") * _DENSE:
            yield from self._sparse(data)
        else:
            yield self._block(data)

    def _sparse(self, data: bytes) -> Iterator[Block]:
        """The same for lines of which most are blank: runs of them, and what is between."""
        begin = 0
        while begin < len(data):
            space = _SPACE.match(data, begin)
            assert space is not None, "it matches nothing, too"
            end = len(data) if space.end() == len(data) else data.rfind(b"\n", begin, space.end()) + 1
            if end > begin:
                yield self._blank(data.count(b"\n", begin, end) + (not data.endswith(b"\n", begin, end)))
                begin = end
            if begin < len(data):
                found = _TO_BLANK.search(data, begin)
                end = found.start() + 1 if found else len(data)
                yield self._block(data[begin:end])
                begin = end

    def _blank(self, lines: int) -> Block:
        first = self.lines + 1
        self.lines += lines
        return Block(first, (), blank=lines)

    def _block(self, data: bytes) -> Block:
        lines: list[bytes | Finding] = list(data.split(b"\n"))
        if data.endswith(b"\n"):
            lines.pop()
        if b"\r" in data:
            lines = [line.rstrip(b"\r") for line in lines if isinstance(line, bytes)]
        if len(data) > self._limit:
            lines = [line if len(line) <= self._limit else self._finding() for line in lines if isinstance(line, bytes)]
        first = self.lines + 1
        self.lines += len(lines)
        return Block(first, lines, data)

    def _too_long(self) -> Block:
        self.lines += 1
        return Block(self.lines, (self._finding(),))

    def _finding(self) -> Finding:
        limit = f"{self._limit / 2**20:g} MiB" if self._limit >= 2**20 else f"{self._limit} bytes"
        return Finding(
            "line_too_long",
            "",
            f"the line is longer than {limit}",
            "split the example, put one example on each line, or raise TUNESTREAM_VALIDATION__MAX_LINE_BYTES",
        )


SOURCE_ROW = "source_row"


def source_row(path: Path, line: int) -> str | None:
    """Which row of the user's own file ingest has made the row on a line (from 1) of; None: the row does not say."""
    with path.open("rb") as file:
        raw = next(itertools.islice(file, line - 1, None), b"")
    try:
        found = json.loads(raw)["metadata"][SOURCE_ROW]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if isinstance(found, str) else None
