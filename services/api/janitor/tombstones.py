"""Carries out tombstones: deletes what is below the prefix that one names, then the tombstone. That of a model stays,
because the result of its training would still tell of the model."""

from __future__ import annotations

import logging
import re

from pydantic import ValidationError

from services.api import metrics
from services.api.janitor.removal import Certain, remove
from shared.access.tuned_models import DELETED_MODELS
from shared.errors import StoreRefused
from shared.events import Tombstone
from shared.ids import is_job_id
from shared.stages.ledger import DELETED, Entry
from shared.store.folders import manifest_key
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

_ATTEMPT = r"jobs/(?P<job>[^/]+)/trainer/attempt-[0-9]{1,9}/"
_MAY_NAME = {
    "checkpoints": re.compile(_ATTEMPT + r"resume/(?P<name>[^/]+)/"),
    DELETED_MODELS: re.compile(_ATTEMPT + r"(?P<name>adapter|checkpoints/step-[0-9]{1,9})/"),
}
"""What a tombstone of a kind may name. Whoever may write tombstones of a kind can have deleted what is here, so it is
as little as can be."""


def may_name(kind: str, prefix: str) -> bool:
    """Whether a tombstone of this kind may have deleted what is below `prefix`."""
    allowed = _MAY_NAME.get(kind)
    match = allowed.fullmatch(prefix) if allowed else None
    return match is not None and is_job_id(match["job"]) and match["name"] not in (".", "..")


STAY = frozenset({DELETED_MODELS})
"""The kinds whose tombstones stay for ever. Each is carried out once in the life of a janitor."""


class Tombstones:
    """Everything below `deleted/`, again and again."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._refused: dict[str, str] = {}
        """The ETags of tombstones that are refused, by key: each is read and logged once."""
        self._done: dict[str, str] = {}
        """The ETags of those that were carried out and stay, by key."""

    async def carry_out(self, certain: Certain) -> None:
        """Carry out all that there are. What is wrong with one does not stop the others.

        Raises:
            StoreUnavailable, ConfigError: the store does not answer, or refuses the janitor.
        """
        after, met = "", set[str]()
        while page := await self._objects.page(DELETED, after):
            after = page[-1].key
            for entry in page:
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
        kind = entry.key.removeprefix(DELETED).partition("/")[0]
        found = await self._objects.get(entry.key)
        if found is None:
            return True
        try:
            prefix = Tombstone.model_validate_json(found[0]).prefix
        except ValidationError:
            log.error("a tombstone is refused: it cannot be read", extra={"reason": entry.key})
            return False
        if not may_name(kind, prefix):
            log.error("a tombstone is refused: its kind may not name this prefix", extra={"reason": entry.key})
            return False
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
