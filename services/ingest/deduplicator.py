"""Makes the job of each dataset once, whoever finds it first: sweep, bucket notification, inbox, or another replica.

Markers in the ledger remember what was handled, so that a restart does not read every dataset again.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from services.ingest import metrics
from services.ingest.domain import datasets
from services.ingest.intake import Intake
from shared.errors import AlreadyExists, InputError
from shared.events import DatasetPointer, Job, Origin
from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

SEEN = "ingest/seen/"


class Deduplicator:
    """Remembers what was handled and what is under way.

    It saves work and is not needed for correctness: the same dataset makes the same job, because ids are derived and
    manifests are created once.
    """

    def __init__(self, objects: ObjectStore, intake: Intake, datasets_bucket: str, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._intake = intake
        self._bucket = datasets_bucket
        self._clock = clock
        self._seen: set[str] = set()
        self._underway: set[str] = set()

    async def load(self) -> None:
        """Read all markers at once, instead of asking for every single one."""
        self._seen |= {posixpath.basename(entry.key) for entry in await self._objects.list(SEEN)}

    async def ingest_drop(self, entry: Entry, etags: Mapping[str, str]) -> bool:
        """Make the job of a dropped object; `etags` as in `datasets.drop_name`. Returns whether it was new."""
        pointer = DatasetPointer(bucket=self._bucket, key=entry.key)
        origin = Origin(kind="drop", source=f"s3://{self._bucket}")
        name = datasets.drop_name(self._bucket, entry, etags)

        async def create() -> Job:
            job = await self._intake.create_job(pointer, origin=origin)
            metrics.seconds.observe(max(0.0, self._clock() - entry.modified))
            return job

        return await self.create_once("drop", name, create)

    async def create_once(
        self, kind: Literal["drop", "event"], name: str, create: Callable[[], Awaitable[Job]]
    ) -> bool:
        """Call `create`, unless `name` was handled before or is under way. Returns whether it was called."""
        if name in self._seen or name in self._underway:
            return False
        self._underway.add(name)
        try:
            if await self._objects.exists(SEEN + name):
                self._seen.add(name)  # by another replica
                return False
            try:
                job = await create()
                metrics.taken.labels(kind, "job").inc()
                log.info("job made", extra={"job_id": job.job_id})
            except InputError as error:
                # the object vanished or changed after it was found: no job can be made of it
                metrics.taken.labels(kind, "refused").inc()
                log.warning("no job made", extra={"reason": error.code})
            with contextlib.suppress(AlreadyExists):
                await self._objects.create(SEEN + name, b"{}")
            self._seen.add(name)
            return True
        finally:
            self._underway.discard(name)
