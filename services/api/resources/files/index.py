"""An index of all files, for lists. It is a projection: the ledger decides, and is looked at before every list, because
other replicas write, too."""

from __future__ import annotations

import asyncio
import logging
import posixpath
import sqlite3
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal

from pydantic import ValidationError

from services.api.database import Page, ProjectionDatabase, parse_state
from services.api.resources.files.domain import RESULT_PREFIX, result_file, shown
from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.events import StoredFile
from shared.ids import is_file_id
from shared.stages.ledger import DELETED, FILES, file_meta_key
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

BURIED = f"{DELETED}files/"
READS_AT_ONCE = 16


class FileIndex:
    """Lists files from SQLite. Nothing that the index knows is read from the store again."""

    def __init__(self, objects: ObjectStore, database: ProjectionDatabase) -> None:
        self._objects = objects
        self._database = database
        self._refresh = _Joined(self._look)
        self._unreadable = set[str]()

    async def page(
        self, project: str, *, limit: int, after: str | None, order: Literal["asc", "desc"], purpose: str | None
    ) -> Page[dict[str, Any]] | None:
        """The JSON objects of the files of a project behind the file `after`; None: there never was such a file. While
        the store is away, what is known is listed.

        Raises:
            DatabaseBroken: the database does not work.
        """
        try:
            await self._refresh()
        except (StoreUnavailable, ConfigError, StoreRefused) as error:
            log.warning("files are listed without the store", extra={"reason": type(error).__name__})
        await self._database.write(_add_results)
        position = await self._position(project, after) if after is not None else None
        if after is not None and position is None:
            return None
        found = await self._rows(project, limit, position, order, purpose)
        return Page(found[:limit], len(found) > limit)

    async def forget(self, file_id: str) -> None:
        """The file was deleted."""
        await self._database.write(lambda connection: _mark(connection, [file_id]))

    # --- what the database knows ------------------------------------------------------------------------------------

    async def _rows(
        self,
        project: str,
        limit: int,
        position: tuple[float, str] | None,
        order: Literal["asc", "desc"],
        purpose: str | None,
    ) -> list[dict[str, Any]]:
        where = "project = :project AND gone = 0 AND (expires_at IS NULL OR expires_at > :now)"
        values = {"project": project, "now": self._objects.now(), "purpose": purpose, "limit": limit + 1}
        if purpose is not None:
            where += " AND purpose = :purpose"
        if position is not None:
            where += f" AND (created_at, file_id) {'>' if order == 'asc' else '<'} (:created_at, :file_id)"
            values |= {"created_at": position[0], "file_id": position[1]}
        # single columns: to read ten thousand documents takes a second
        columns = "file_id, size, created_at, expires_at, filename, purpose"
        query = f"SELECT {columns} FROM files WHERE {where} ORDER BY created_at {order}, file_id {order} LIMIT :limit"
        return await self._database.read(
            lambda connection: [shown(*row) for row in connection.execute(query, values).fetchall()]
        )

    async def _position(self, project: str, file_id: str) -> tuple[float, str] | None:
        """Where a file is in the list. It may be deleted: a client that deletes what it lists goes on behind that."""
        query = "SELECT created_at FROM files WHERE project = ? AND file_id = ?"
        row = await self._database.read(lambda connection: connection.execute(query, (project, file_id)).fetchone())
        if row is not None:
            return row[0], file_id
        file = await self._read(file_id) if is_file_id(file_id) else None
        return (file.created_at, file_id) if file is not None and file.project == project else None

    # --- what the ledger holds --------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Bring the index up to date."""
        query = "SELECT file_id FROM files WHERE gone = 0"
        # before the listing: a file that is added meanwhile is not missing from it
        known = await self._database.read(lambda connection: {row[0] for row in connection.execute(query)})
        folders, stones = await asyncio.gather(self._objects.folders(FILES), self._objects.list(BURIED))
        deleted = {posixpath.basename(stone.key).removesuffix(".json") for stone in stones}
        there = set(folders)
        new = there - known - deleted
        if new:
            query = "SELECT file_id FROM files WHERE gone = 1"
            new -= await self._database.read(lambda connection: {row[0] for row in connection.execute(query)})
        found = await self._read_all(sorted(new))
        missing = {file_id for file_id in known - there if not file_id.startswith(RESULT_PREFIX)}

        def call(connection: sqlite3.Connection) -> None:
            _add(connection, found)
            _add_results(connection)
            _mark(connection, missing | deleted)

        await self._database.write(call)

    async def _read_all(self, file_ids: Iterable[str]) -> list[StoredFile]:
        free = asyncio.Semaphore(READS_AT_ONCE)

        async def one(file_id: str) -> StoredFile | None:
            async with free:
                return await self._read(file_id)

        return [file for file in await asyncio.gather(*map(one, file_ids)) if file is not None]

    async def _read(self, file_id: str) -> StoredFile | None:
        """None: its content is still on the way, or nobody can read what is known of it."""
        found = await self._objects.get(file_meta_key(file_id))
        try:
            return StoredFile.model_validate_json(found[0]) if found else None
        except ValidationError:
            if file_id not in self._unreadable:
                self._unreadable.add(file_id)
                log.error("a file cannot be shown, because its document cannot be read", extra={"reason": file_id})
            return None


def _add(connection: sqlite3.Connection, files: Iterable[StoredFile]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO files VALUES (?, ?, ?, ?, ?, 0, ?, ?)",
        [(f.file_id, f.project, f.purpose, f.created_at, f.expires_at, f.filename, f.content.size) for f in files],
    )


def _mark(connection: sqlite3.Connection, file_ids: Iterable[str]) -> None:
    connection.executemany("UPDATE files SET gone = 1 WHERE file_id = ?", [(file_id,) for file_id in file_ids])


def _add_results(connection: sqlite3.Connection) -> None:
    """The result files of jobs that were trained since the last look."""
    query = "SELECT job_id, state FROM jobs WHERE visible = 1 AND job_id NOT IN (SELECT job_id FROM resulted)"
    for job_id, text in connection.execute(query).fetchall():
        state = parse_state(job_id, text)
        if state is None:
            continue
        file = result_file(state)
        if file is not None:
            _add(connection, [file])
        if file is not None or state.settled:
            connection.execute("INSERT OR IGNORE INTO resulted VALUES (?)", (job_id,))


class _Joined:
    """Work that many wait for at once. Each waits for a run that began after it had asked, and they share it."""

    def __init__(self, work: Callable[[], Awaitable[None]]) -> None:
        self._work = work
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._run(self._running))
        await asyncio.shield(self._next)

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        await self._work()
