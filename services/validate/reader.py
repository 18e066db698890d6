"""Reads a file as numbered lines of bytes, in constant memory whatever its size."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from services.validate.domain.findings import Finding
from services.validate.domain.sniff import HEAD_BYTES, sniff

CHUNK = 2**20
_BOM = b"\xef\xbb\xbf"
_DENSE = 16  # bytes a line on average: below, most lines are probably blank
_RETURNS = re.compile(rb"\r+(?=\n|\Z)")
_SPACE = re.compile(rb"\s*")
_TO_BLANK = re.compile(rb"\n\s*\n")


@dataclass(frozen=True)
class Source:
    """A file of rows; `name` is the user's name for it."""

    path: Path
    name: str


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines of a file. `first`: the number of the first line, from 1. `data`: the lines, with `\\n` between them.
    `ends`: where each ends. `blank`: that many blank lines, and no others. `too_long`: what there is to say of lines
    longer than `limit` bytes; None: there are none. Of a line that was not even read, `data` has nothing.
    """

    first: int
    data: bytes = b""
    ends: Sequence[int] = ()
    blank: int = 0
    limit: int = 0
    too_long: Finding | None = None

    @property
    def read_whole(self) -> bool:
        """Whether no line can be too long."""
        return self.too_long is None

    def line(self, place: int) -> bytes:
        """A line that is not too long, without its end."""
        return self.data[self.ends[place - 1] + 1 if place else 0 : self.ends[place]]

    def lines(self, begin: int = 0, end: int | None = None) -> Iterator[bytes | Finding]:
        """The lines from place `begin` to `end`, without their line ends."""
        start = self.ends[begin - 1] + 1 if begin else 0
        for stop in self.ends[begin:end]:
            if self.too_long is not None and stop - start > self.limit:
                yield self.too_long
            else:
                yield self.data[start:stop]
            start = stop + 1

    def after(self, lines: int) -> Block:
        """The block without its first lines."""
        start = self.ends[lines - 1] + 1
        ends = [end - start for end in self.ends[lines:]]
        return replace(self, first=self.first + lines, data=self.data[start:], ends=ends)


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
            for number, line in enumerate(block.lines(), start=block.first):
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
                    whole = memoryview(chunk)[begin:end]
                    yield from self._read(b"".join((*begun, whole)))
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
            return
        if b"\r" in data:
            data = _RETURNS.sub(b"", data)
        block = self._block(data)
        if len(data) < len(block.ends) * _DENSE:
            self.lines -= len(block.ends)
            yield from self._sparse(data)
        else:
            yield block

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
        return Block(first, blank=lines)

    def _block(self, data: bytes) -> Block:
        ends, end = list[int](), data.find(b"\n")
        while end >= 0:
            ends.append(end)
            end = data.find(b"\n", end + 1)
        if not data.endswith(b"\n"):
            ends.append(len(data))
        first = self.lines + 1
        self.lines += len(ends)
        return Block(
            first, data, ends, limit=self._limit, too_long=self._finding() if len(data) > self._limit else None
        )

    def _too_long(self) -> Block:
        self.lines += 1
        return Block(self.lines, ends=[self._limit + 1], limit=self._limit, too_long=self._finding())

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
