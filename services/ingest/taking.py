"""Takes everything once, whoever finds it first: the sweep, a bucket notification, the inbox, or another replica.

A marker in the ledger remembers what was taken, so that a restart does not read every dataset again.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
from collections.abc import Awaitable, Callable, Mapping

from services.ingest.domain import datasets
from services.ingest.intake import Intake
from shared.errors import AlreadyExists, InputError
from shared.events import DatasetPointer, Job, Origin
from shared.ledger import Entry
from shared.objects import ObjectStore

log = logging.getLogger(__name__)

SEEN = "ingest/seen/"


class Taking:
    """What was taken, and what is being taken. It saves work and is not needed for correctness: taking something
    twice makes the same job, because ids are derived and manifests are created once."""

    def __init__(self, objects: ObjectStore, intake: Intake, datasets_bucket: str) -> None:
        self._objects = objects
        self._intake = intake
        self._bucket = datasets_bucket
        self._taken: set[str] = set()
        self._underway: set[str] = set()

    async def recall(self) -> None:
        """Learn at once what was ever taken, instead of asking for every single thing."""
        self._taken |= {posixpath.basename(entry.key) for entry in await self._objects.list(SEEN)}

    async def drop(self, entry: Entry, etags: Mapping[str, str]) -> bool:
        """Make the job of a dropped object; `etags` as in `datasets.drop_name`. False: there was nothing to do."""
        pointer = DatasetPointer(bucket=self._bucket, key=entry.key)
        origin = Origin(kind="drop", source=f"s3://{self._bucket}")
        name = datasets.drop_name(self._bucket, entry, etags)
        return await self.once(name, lambda: self._intake.take(pointer, origin=origin))

    async def once(self, name: str, take: Callable[[], Awaitable[Job]]) -> bool:
        """Call `take` unless it was called for `name` before, or is being called. False: it was not called."""
        if name in self._taken or name in self._underway:
            return False
        self._underway.add(name)
        try:
            if await self._objects.exists(SEEN + name):
                self._taken.add(name)  # by another replica
                return False
            try:
                job = await take()
                log.info("job made", extra={"job_id": job.job_id})
            except InputError as error:
                # it vanished or changed since it was found: there is nothing to make a job of
                log.warning("not taken", extra={"reason": error.code})
            with contextlib.suppress(AlreadyExists):
                await self._objects.create(SEEN + name, b"{}")
            self._taken.add(name)
            return True
        finally:
            self._underway.discard(name)
