"""Deletes files whose time is over, content that never became a file, and uploads that ended long ago."""

from __future__ import annotations

import logging

from pydantic import ValidationError

from services.api.domain.retention import DAY
from services.api.janitor.folders import walk_folders
from services.api.janitor.in_use import GRACE_SECONDS, FilesInUse, UnreadableJob
from services.api.janitor.removal import Certain, remove
from shared.events import StoredFile
from shared.stages.ledger import FILES, UPLOADS, Entry, file_meta_key
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

UNFINISHED_SECONDS = DAY
"""Nobody works on something that is so old and not finished. An upload expires after an hour."""


class StoredFiles:
    """Walks through `files/` and `uploads/`. The document of a file never changes, so each is read once."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._expires = dict[str, float | None]()
        """When each file expires, by its id."""

    async def remove(self, certain: Certain) -> None:
        """Delete all that nobody can see any more. No reader notices: all of them obey the times themselves.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses the janitor.
        """
        now = self._objects.now()
        used: frozenset[str] | None = None
        async for _, entries in walk_folders(self._objects, UPLOADS):
            if max(entry.modified for entry in entries) < now - UNFINISHED_SECONDS:
                await remove(self._objects, certain, "uploads", entries)
        met = set[str]()
        async for file_id, entries in walk_folders(self._objects, FILES):
            met.add(file_id)
            if not await self._is_over(file_id, entries, now):
                continue
            try:
                used = await FilesInUse(self._objects).look() if used is None else used
            except UnreadableJob:
                log.error("a job under way cannot be read, so no file is deleted")
                return
            if file_id not in used:
                await remove(self._objects, certain, "files", entries)
        self._expires = {file_id: at for file_id, at in self._expires.items() if file_id in met}

    async def _is_over(self, file_id: str, entries: list[Entry], now: float) -> bool:
        if file_meta_key(file_id) not in {entry.key for entry in entries}:
            return max(entry.modified for entry in entries) < now - UNFINISHED_SECONDS
        if file_id not in self._expires:
            found = await self._objects.get(file_meta_key(file_id))
            try:
                self._expires[file_id] = StoredFile.model_validate_json(found[0]).expires_at if found else None
            except ValidationError:
                self._expires[file_id] = None  # of another version
        expires = self._expires[file_id]
        return expires is not None and expires + GRACE_SECONDS <= now
