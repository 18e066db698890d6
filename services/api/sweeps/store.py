"""Reads and writes the documents of sweeps. All of them are created once, so what was read is never read again."""

from __future__ import annotations

import asyncio
import logging
import posixpath
from typing import TypeVar

from pydantic import ValidationError

from services.api.domain.sweeps.documents import (
    SWEEPS,
    Best,
    Cancelled,
    Documents,
    Pruned,
    Sweep,
    SweepResult,
    Trial,
    best_key,
    cancel_key,
    is_sweep_id,
    pruned_key,
    sweep_key,
    sweep_prefix,
    sweep_result_key,
    trial_key,
)
from shared.errors import AlreadyExists
from shared.events import FrozenModel
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)
D = TypeVar("D", bound=FrozenModel)

READERS = 8  # sweeps that are read at the same time


class SweepStore:
    """The sweeps in the object store."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, Documents] = {}
        self._unreadable: set[str] = set()

    async def all(self, project: str | None = None) -> list[Documents]:
        """Every sweep that can be read, newest first. That takes a call for each that is under way. `project`: only its
        sweeps are looked at.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
        """
        ids = [name for name in await self._objects.folders(SWEEPS) if is_sweep_id(name)]
        found = list[Documents]()
        for start in range(0, len(ids), READERS):
            some = await asyncio.gather(*map(self._begun, ids[start : start + READERS]))
            wanted = [each for each in some if each and project in (None, each.sweep.project)]
            await asyncio.gather(*map(self._learn, wanted))
            found += wanted
        return sorted(found, key=lambda each: (-each.sweep.created_at, each.sweep.sweep_id))

    async def under_way(self) -> list[Documents]:
        """Those without a result, oldest first."""
        return [documents for documents in reversed(await self.all()) if documents.result is None]

    async def find(self, sweep_id: str) -> Documents | None:
        """The documents of a sweep as they are now; None: there is no such sweep, or it cannot be read."""
        if known := await self._begun(sweep_id):
            await self._learn(known)
        return known

    async def find_of(self, sweep_id: str, project: str) -> Documents | None:
        """The same of a sweep of a project. One of another project is looked for as one that does not exist."""
        known = self._known.get(sweep_id)
        if known is None or known.sweep.project != project:
            sweep = await self._read(sweep_key(sweep_id), Sweep)
            if sweep is None or sweep.project != project:
                return None
        return await self.find(sweep_id)

    async def create(self, key: str, document: FrozenModel) -> bool:
        """Write a document. False: there is another one."""
        try:
            await self._objects.create(key, document.model_dump_json().encode())
        except AlreadyExists:
            return False
        return True

    async def _begun(self, sweep_id: str) -> Documents | None:
        """What was known of a sweep at the last look, or its request."""
        if sweep_id not in self._known:
            if (sweep := await self._read(sweep_key(sweep_id), Sweep)) is None:
                return None
            self._known.setdefault(sweep_id, Documents(sweep))
        return self._known[sweep_id]

    async def _learn(self, known: Documents) -> None:
        """Read what is new of a sweep."""
        if known.result is not None:
            return
        sweep_id = known.sweep.sweep_id
        prefix = sweep_prefix(sweep_id)
        keys = {entry.key for entry in await self._objects.list(prefix)}
        if sweep_result_key(sweep_id) in keys:
            known.result = await self._read(sweep_result_key(sweep_id), SweepResult)
            if known.result:
                return  # it has all that anybody wants to know of a sweep that is over
        for number in _numbers(keys, f"{prefix}trials/") - known.trials.keys():
            if trial := await self._read(trial_key(sweep_id, number), Trial):
                known.trials[number] = trial
        for number in _numbers(keys, f"{prefix}pruned/") - known.pruned.keys():
            if pruned := await self._read(pruned_key(sweep_id, number), Pruned):
                known.pruned[number] = pruned
        if known.best is None and best_key(sweep_id) in keys:
            known.best = await self._read(best_key(sweep_id), Best)
        if known.cancelled is None and cancel_key(sweep_id) in keys:
            known.cancelled = await self._read(cancel_key(sweep_id), Cancelled)

    async def _read(self, key: str, kind: type[D]) -> D | None:
        found = await self._objects.get(key)
        if found is None:
            return None
        try:
            return kind.model_validate_json(found[0])
        except ValidationError:  # another version wrote it, or it is damaged
            if key not in self._unreadable:
                self._unreadable.add(key)
                log.error("a document of a sweep cannot be read", extra={"key": key})
            return None


def _numbers(keys: set[str], prefix: str) -> set[int]:
    names = [posixpath.basename(key).removesuffix(".json") for key in keys if key.startswith(prefix)]
    return {int(name) for name in names if name.isascii() and name.isdigit()}
