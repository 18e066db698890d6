"""Makes one job of each dataset, whichever part finds it first: sweep, bucket notification, inbox or another replica.

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
    """Remembers which drops and events were handled, and which are being handled. This saves work; correctness does not
    need it. The same dataset always makes the same job, because its id is derived from the dataset and the settings,
    and its manifest is a create-once object.
    """

    def __init__(self, objects: ObjectStore, intake: Intake, datasets_bucket: str, clock: Callable[[], float]) -> None:
        self._objects = objects
        self._intake = intake
        self._bucket = datasets_bucket
        self._clock = clock
        self._seen: set[str] = set()
        self._underway: set[str] = set()

    async def load(self) -> None:
        """Read all markers in one listing, instead of one request for each."""
        self._seen |= {posixpath.basename(entry.key) for entry in await self._objects.list(SEEN)}

    async def ingest_drop(self, entry: Entry, etags: Mapping[str, str]) -> bool:
        """Make the job of a dropped object and return True; return False if the drop was handled before. `etags`: see
        `datasets.drop_name`."""
        pointer = DatasetPointer(bucket=self._bucket, key=entry.key)
        origin = Origin(kind="drop", source=f"s3://{self._bucket}")
        name = datasets.drop_name(self._bucket, entry, etags)

        async def create() -> Job:
            job = await self._intake.create_job(pointer, origin=origin)
            metrics.seconds.observe(max(0.0, self._clock() - entry.modified))
            return job

        return await self.handle_new("drop", name, create)

    async def handle_new(self, kind: Literal["drop", "event"], name: str, create: Callable[[], Awaitable[Job]]) -> bool:
        """Call `create` and return True; return False if `name` was handled before or is being handled."""
        if name in self._seen or name in self._underway:
            return False
        self._underway.add(name)
        try:
            if await self._objects.exists(SEEN + name):
                self._seen.add(name)  # another replica handled it
                return False
            try:
                job = await create()
                metrics.taken.labels(kind, "job").inc()
                log.info("job made", extra={"job_id": job.job_id})
            except InputError as error:
                # the object was deleted or overwritten after it was found, so there is nothing to make a job of
                metrics.taken.labels(kind, "refused").inc()
                log.warning("no job made", extra={"reason": error.code})
            with contextlib.suppress(AlreadyExists):
                await self._objects.create(SEEN + name, b"{}")
            self._seen.add(name)
            return True
        finally:
            self._underway.discard(name)
