"""Carries out tombstones: deletes what is below the prefix that one names, then the tombstone. That of a model stays,
because the result of its training would still tell of the model."""

from __future__ import annotations

import logging
import re

from pydantic import ValidationError

from services.api import metrics
from services.api.janitor.in_use import GRACE_SECONDS, FilesInUse, UnreadableJob
from services.api.janitor.removal import Certain, remove
from services.api.resources.files.domain import RESULT_PREFIX
from shared.access.tuned_models import DELETED_MODELS
from shared.errors import StoreRefused
from shared.events import Tombstone
from shared.ids import is_job_id
from shared.stages.ledger import DELETED, Entry, tombstone_key
from shared.store.folders import manifest_key
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

_RESULTS = tombstone_key("files", RESULT_PREFIX).removesuffix(".json")
_ATTEMPT = r"jobs/(?P<job>[^/]+)/trainer/attempt-[0-9]{1,9}/"
_MAY_NAME = {
    "checkpoints": re.compile(_ATTEMPT + r"resume/(?P<name>[^/]+)/"),
    DELETED_MODELS: re.compile(_ATTEMPT + r"(?P<name>adapter|checkpoints/step-[0-9]{1,9})/"),
    "files": re.compile(r"files/(?P<id>file-[A-Za-z0-9-]{1,59})/"),
    "uploads": re.compile(r"uploads/(?P<id>upload_[a-z2-7]{24})/parts/"),
}
"""What a tombstone of a kind may name. Whoever may write tombstones of a kind can have deleted what is here, so it is
as little as can be."""


def may_name(kind: str, prefix: str, name: str = "") -> bool:
    """Whether the tombstone `name` of this kind may have deleted what is below `prefix`. Readers look for those of a
    file or an upload by its id, so they are named after it."""
    allowed = _MAY_NAME.get(kind)
    match = allowed.fullmatch(prefix) if allowed else None
    if match is None:
        return False
    if "id" in match.groupdict():
        return match["id"] == name
    return is_job_id(match["job"]) and match["name"] not in (".", "..")


STAY = frozenset({DELETED_MODELS})
"""The kinds whose tombstones stay for ever. Each is carried out once in the life of a janitor."""


class Tombstones:
    """Everything below `deleted/`, again and again."""

    def __init__(self, objects: ObjectStore, grace: float = GRACE_SECONDS) -> None:
        """`grace`: that of files, in seconds."""
        self._objects = objects
        self._grace = grace
        self._in_use = FilesInUse(objects)
        self._used: frozenset[str] | None = None
        """The files that are in use; None: nobody has looked since this round began."""
        self._refused: dict[str, str] = {}
        """The ETags of tombstones that are refused, by key: each is read and logged once."""
        self._done: dict[str, str] = {}
        """The ETags of those that were carried out and stay, by key."""

    async def carry_out(self, certain: Certain) -> None:
        """Carry out all that there are. What is wrong with one does not stop the others.

        Raises:
            StoreUnavailable, ConfigError: the store does not answer, or refuses the janitor.
        """
        met = set[str]()
        self._used = None
        async for entry in self._objects.walk(DELETED):
            if entry.key.startswith(_RESULTS):
                continue  # a result file is an artifact of its job: only the tombstone says that it is deleted
            if entry.etag in (self._refused.get(entry.key), self._done.get(entry.key)):
                met.add(entry.key)
                continue
            try:
                if not await self._one(entry, certain):
                    self._refused[entry.key] = entry.etag
                    met.add(entry.key)
            except StoreRefused as error:
                log.error("a tombstone cannot be carried out", extra={"reason": error.code})
        self._refused = {key: etag for key, etag in self._refused.items() if key in met}
        metrics.tombstones_refused.set(len(self._refused))

    async def _one(self, entry: Entry, certain: Certain) -> bool:
        """Carry out one tombstone. False: it is refused, and stays."""
        kind, _, name = entry.key.removeprefix(DELETED).removesuffix(".json").partition("/")
        found = await self._objects.get(entry.key)
        if found is None:
            return True
        try:
            stone = Tombstone.model_validate_json(found[0])
        except ValidationError:
            log.error("a tombstone is refused: it cannot be read", extra={"reason": entry.key})
            return False
        prefix = stone.prefix
        if not may_name(kind, prefix, name):
            log.error("a tombstone is refused: its kind may not name this prefix", extra={"reason": entry.key})
            return False
        if kind == "files" and await self._needed(name, stone.at):
            return True  # until a later round
        # in front of the listing, which may be long: from now on the folder does not exist for any reader
        if manifest := await self._objects.stat(manifest_key(prefix)):
            await remove(self._objects, certain, kind, [manifest])
        while page := await self._objects.page(prefix):
            await remove(self._objects, certain, kind, page)
        if kind in STAY:
            self._done[entry.key] = entry.etag
            return True
        await remove(self._objects, certain, "tombstones", [entry])
        return True

    async def _needed(self, file_id: str, deleted_at: float) -> bool:
        """Whether a job may still read the file."""
        if self._objects.now() < deleted_at + self._grace:
            return True
        if self._used is None:
            try:
                self._used = await self._in_use.look()
            except UnreadableJob:
                log.error("a job under way cannot be read, so no file is deleted")
                return True
        return file_id in self._used
