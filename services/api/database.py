"""Keeps the projection in SQLite. The file may be deleted at any time, and is then rebuilt.

One thread writes and one reads, each with a connection of its own. With write-ahead logging neither blocks the other.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError
from pydantic_core import to_json

from services.api.domain.messages import Message
from services.api.domain.state import JobState
from services.api.schema import connect, open_or_make
from shared.errors import ConfigError, TransientError

log = logging.getLogger(__name__)
T = TypeVar("T")

LATE_SECONDS = 60.0
"""A late message that is younger than this is put last, because a polling client may have seen the others already. An
older one comes from a rebuild, and is put at its own time."""


class DatabaseBroken(TransientError):
    """The database does not work. The service must restart, which replaces a damaged database."""


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list, and whether there is more behind it."""

    rows: Sequence[T]
    has_more: bool


class ProjectionDatabase:
    """Jobs and their messages. Every method raises `DatabaseBroken` when the database does not work."""

    def __init__(self, path: Path) -> None:
        """Open the file. It is made when it is absent, and replaced when it is damaged or of another version.

        Raises:
            ConfigError: no database can be kept at `path`.
        """
        self._writer = ThreadPoolExecutor(1, "sqlite-writer")
        self._reader = ThreadPoolExecutor(1, "sqlite-reader")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write_connection = self._writer.submit(open_or_make, path).result()
            self._read_connection = self._reader.submit(connect, path).result()
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"TUNESTREAM_API__DATABASE: cannot keep a database at {path}: {error}") from None
        self.database_id: str = self._write_connection.execute("SELECT id FROM birth").fetchone()[0]
        """Made with the file. A new database has another id, joins as a new consumer group, and reads the topics from
        their beginning."""

    async def close(self) -> None:
        await self._write(lambda connection: connection.close())
        await self.read(lambda connection: connection.close())
        self._writer.shutdown()
        self._reader.shutdown()

    # --- writing ----------------------------------------------------------------------------------------------

    async def update(
        self, job_id: str, change: Callable[[JobState], JobState], messages: Sequence[Message], now: float
    ) -> JobState:
        """Change the state of a job and add to its history, in one transaction."""

        def call(connection: sqlite3.Connection) -> JobState:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                before = _state(connection, job_id)
                after = change(before or JobState(job_id=job_id))
                if after != before:
                    connection.execute(
                        "INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)",
                        (
                            job_id,
                            after.created_at,
                            after.status,
                            after.visible,
                            after.settled,
                            after.project,
                            after.model_dump_json(exclude_defaults=True),
                        ),
                    )
                for message in messages:
                    _add(connection, job_id, message, now)
                return after

        return await self._write(call)

    async def mark_complete(self) -> None:
        """The whole ledger was read into this database."""

        def call(connection: sqlite3.Connection) -> None:
            with connection:
                connection.execute("INSERT OR IGNORE INTO marks VALUES ('complete')")

        await self._write(call)

    # --- reading: what the projection needs; the lists of a resource are in its store -------------------------

    async def job(self, job_id: str) -> JobState | None:
        """A job; None if it is not there, or its row cannot be read."""
        return await self.read(lambda connection: _state(connection, job_id))

    async def unsettled(self) -> list[str]:
        """Jobs that may still change in the ledger, oldest first."""
        query = "SELECT job_id FROM jobs WHERE visible = 1 AND settled = 0 ORDER BY created_at"
        return await self.read(lambda connection: [row[0] for row in connection.execute(query)])

    async def is_settled(self, job_id: str) -> bool:
        """Whether the job has ended according to the ledger, as far as this database knows."""
        query = "SELECT 1 FROM jobs WHERE job_id = ? AND settled = 1"
        return await self.read(lambda connection: connection.execute(query, (job_id,)).fetchone() is not None)

    async def is_complete(self) -> bool:
        """Whether the whole ledger was read into this database once."""
        query = "SELECT 1 FROM marks WHERE name = 'complete'"
        return await self.read(lambda connection: connection.execute(query).fetchone() is not None)

    async def known(self) -> set[str]:
        """Every visible job."""
        query = "SELECT job_id FROM jobs WHERE visible = 1"
        return await self.read(lambda connection: {row[0] for row in connection.execute(query)})

    async def open_jobs(self, project: str) -> int:
        """How many jobs of a project have not ended."""
        ended = "status IN ('succeeded', 'failed', 'cancelled')"
        query = f"SELECT count(*) FROM jobs WHERE project = ? AND visible = 1 AND NOT {ended}"
        return await self.read(lambda connection: int(connection.execute(query, (project,)).fetchone()[0]))

    async def counts(self) -> dict[str, int]:
        """Visible jobs by status."""
        query = "SELECT status, count(*) FROM jobs WHERE visible = 1 GROUP BY status"
        return await self.read(lambda connection: dict(connection.execute(query).fetchall()))

    # --- threads ----------------------------------------------------------------------------------------------

    async def write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `call`, in one transaction."""

        def in_transaction(connection: sqlite3.Connection) -> T:
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                return call(connection)

        return await self._write(in_transaction)

    async def _write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        return await _in(self._writer, call, self._write_connection)

    async def read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `call`, which only reads, and runs in the reading thread."""
        return await _in(self._reader, call, self._read_connection)


def _state(connection: sqlite3.Connection, job_id: str) -> JobState | None:
    row = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
    return parse_state(job_id, row[0]) if row else None


def parse_state(job_id: str, row: str) -> JobState | None:
    """The state in a row of the table `jobs`; None if it cannot be read. It is then made anew from the ledger."""
    try:
        state = JobState.model_validate_json(row)
    except ValidationError:
        state = None
    if state is None or state.job_id != job_id:
        log.error("a row of the database cannot be read", extra={"job_id": job_id})
        return None
    return state


def _add(connection: sqlite3.Connection, job_id: str, message: Message, now: float) -> None:
    position = int(message.at * 1e6)
    if now - message.at < LATE_SECONDS:
        last = connection.execute("SELECT max(position) FROM messages WHERE job_id = ?", (job_id,)).fetchone()[0]
        position = max(position, (last or 0) + 1)
    connection.execute(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
        "ON CONFLICT (job_id, id) DO UPDATE SET at = min(at, excluded.at)",
        (
            job_id,
            message.id,
            position,
            message.at,
            message.level,
            message.type,
            message.message,
            to_json(message.data, inf_nan_mode="null").decode(),
        ),
    )


async def _in(
    executor: ThreadPoolExecutor, call: Callable[[sqlite3.Connection], T], connection: sqlite3.Connection
) -> T:
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, call, connection)
    except (sqlite3.IntegrityError, sqlite3.DataError):
        raise  # this value cannot be stored; restarting would not help
    except sqlite3.Error as error:
        raise DatabaseBroken(f"SQLite: {error}") from error
