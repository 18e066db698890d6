"""Which files the jobs and the sweeps under way still read. A file that its owner has deleted, or whose time is over,
stays as long as one of them needs it."""

from __future__ import annotations

import posixpath

from pydantic import ValidationError

from services.api.domain.retention import DAY
from services.api.domain.stored import read_manifest
from services.api.domain.sweeps.documents import SWEEPS, Sweep, sweep_key, sweep_result_key
from shared.events import Asked, Reference
from shared.ids import is_job_id
from shared.stages.ledger import ASKED, FILES, PENDING, asked_key, job_key, pending_entry
from shared.store.objects import ObjectStore

GRACE_SECONDS = 60.0
"""For so long a file outlives its tombstone, or its time: a request that had found it just before may still make a job
of it."""


class UnreadableJob(Exception):
    """Nobody knows which files a job under way reads, so no file is deleted."""


class FilesInUse:
    """The files that are the datasets of jobs under way."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._known: dict[str, frozenset[str]] = {}
        """The files of each job that was under way at the last look: a manifest never changes."""
        self._over: set[str] = set()
        """Sweeps that have ended."""

    async def look(self) -> frozenset[str]:
        """The ids of the files that are in use now.

        Raises:
            UnreadableJob: nobody can tell.
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses the janitor.
        """
        # first: the jobs that a sweep asks for meanwhile are found below
        swept = await self._swept()
        known = dict[str, frozenset[str]]()
        # in this order: a job that is made meanwhile is in one of them
        for job_id in [*await self._asked(), *await self._pending()]:
            files = self._known[job_id] if job_id in self._known else await self._files_of(job_id)
            if files is not None:
                known[job_id] = files
        self._known = known
        return swept.union(*known.values())

    async def _swept(self) -> frozenset[str]:
        """The files of sweeps under way: their next trials read them."""
        found = set[str]()
        for sweep_id in await self._objects.folders(SWEEPS):
            if sweep_id in self._over:
                continue
            if await self._objects.exists(sweep_result_key(sweep_id)):
                self._over.add(sweep_id)
            elif stored := await self._objects.get(sweep_key(sweep_id)):
                try:
                    sweep = Sweep.model_validate_json(stored[0])
                except ValidationError:
                    raise UnreadableJob(sweep_id) from None
                found |= self._files(sweep.dataset, sweep.validation_file)
        return frozenset(found)

    async def _asked(self) -> list[str]:
        """Jobs that a client has asked for a short time ago. Ingest makes them within seconds, or when it is back."""
        found, now = list[str](), self._objects.now()
        async for entry in self._objects.walk(ASKED):
            job_id = posixpath.basename(entry.key).removesuffix(".json")
            # once it is made, the index of open work has it until it ends
            if entry.modified > now - DAY or not await self._objects.exists(job_key(job_id)):
                found.append(job_id)
        return found

    async def _pending(self) -> list[str]:
        entries = [pending_entry(entry.key) async for entry in self._objects.walk(PENDING)]
        return [job_id for job_id in dict.fromkeys(entry[2] for entry in entries if entry) if is_job_id(job_id)]

    async def _files_of(self, job_id: str) -> frozenset[str] | None:
        """None: there is no such job."""
        if found := await self._objects.get(job_key(job_id)):
            if (job := read_manifest(found[0])) is None:
                raise UnreadableJob(job_id)
            return self._files(job.dataset, job.validation_file)
        if asked := await self._objects.get(asked_key(job_id)):
            try:
                job = Asked.model_validate_json(asked[0]).job
                return self._files(job.dataset, job.validation_file)
            except ValidationError:
                raise UnreadableJob(job_id) from None
        return None

    def _files(self, *named: Reference | None) -> frozenset[str]:
        references = [each for each in named if each is not None]
        keys = [each.key for each in references if each.bucket == self._objects.bucket and each.key.startswith(FILES)]
        return frozenset(key.removeprefix(FILES).partition("/")[0] for key in keys)
