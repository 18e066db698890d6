"""Rows of one conversation are brought together, however far apart they are in the file.

They are sorted on disk by SQLite, which keeps `CACHE_KIB` of them in memory; the disk needs about three times the size
of the texts.
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any

from services.ingest.sources.limits import CELL_BYTES

CACHE_KIB = 65_536
MOST_ROWS = 10_000
"""Of one conversation; more are a column that is no conversation."""


class Groups:
    """A table of rows on disk. `add` them all, then read `conversations`, and `put` and read what they become in the
    order in which each begins in the file."""

    def __init__(self, folder: Path) -> None:
        self._database = sqlite3.connect(folder / "groups.sqlite", isolation_level=None)
        for pragma in ("journal_mode=OFF", "synchronous=OFF", f"cache_size=-{CACHE_KIB}", "temp_store=FILE"):
            self._database.execute(f"PRAGMA {pragma}").close()
        self._database.execute("CREATE TABLE rows (name TEXT, place, number INTEGER, said TEXT)")
        self._database.execute("CREATE TABLE made (number INTEGER, example BLOB)")
        self._database.execute("BEGIN")

    def __enter__(self) -> Groups:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def add(self, name: str, place: float | str | None, number: int, said: Any) -> None:
        """A row: the conversation that it belongs to, what orders it there, its number in the file, what it says."""
        text = json.dumps(said, ensure_ascii=False, separators=(",", ":"))
        self._database.execute("INSERT INTO rows VALUES (?, ?, ?, ?)", (name, place, number, text))

    def conversations(self) -> Iterator[tuple[list[int], list[Any] | None]]:
        """The numbers of the rows of each conversation, and what they say in order; None: that is too much."""
        query = "SELECT name, number, said FROM rows ORDER BY name, place, number"
        with closing(self._database.cursor()) as cursor:
            for _, rows in itertools.groupby(cursor.execute(query), key=lambda row: row[0]):
                numbers, said, size = list[int](), list[Any](), 0
                for _, number, text in rows:
                    size += len(text)
                    if len(numbers) < MOST_ROWS:
                        numbers.append(number)
                    if size <= CELL_BYTES and len(said) < MOST_ROWS:
                        said.append(json.loads(text))
                    else:
                        size = CELL_BYTES + 1
                yield numbers, said if size <= CELL_BYTES else None

    def put(self, number: int, example: bytes) -> None:
        """What a conversation became that begins with the row of this number."""
        self._database.execute("INSERT INTO made VALUES (?, ?)", (number, example))

    def made(self) -> Iterator[tuple[int, bytes]]:
        """What conversations became, in the order of the file."""
        yield from self._database.execute("SELECT number, example FROM made ORDER BY number")
