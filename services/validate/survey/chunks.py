"""A file in pieces that end at line ends, so that several processes can read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SIZE = 2**20
_STEP = 2**16


class Chunk(NamedTuple):
    """Bytes `start` to `end` of a file: whole lines. `too_long`: it is one line that is longer than allowed, and nobody
    should read it."""

    start: int
    end: int
    too_long: bool = False


def chunks(path: Path, max_line_bytes: int, size: int = SIZE) -> Iterator[Chunk]:
    """The pieces of a file in order. Memory: one piece."""
    total = path.stat().st_size
    start = 0
    with path.open("rb") as file:
        while start < total:
            end = min(start + size, total)
            file.seek(end - 1)
            last = file.read(1)
            if last == b"\n" or end == total:
                yield Chunk(start, end)
                start = end
                continue
            # the line that is cut here: from where, and how far does it go
            file.seek(start)
            head = file.read(end - start)
            begin = start + head.rfind(b"\n") + 1
            while (rest := file.readline(_STEP)) and not rest.endswith(b"\n"):
                end += len(rest)
            end += len(rest)
            if end - begin <= max_line_bytes + 2:
                yield Chunk(start, end)
            else:
                if begin > start:
                    yield Chunk(start, begin)
                yield Chunk(begin, end, too_long=True)
            start = end
