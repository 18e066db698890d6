"""Finds what is new: objects in the datasets bucket, and what strangers announced.

A marker in the ledger remembers what was taken, so that a restart does not read every dataset again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
from collections.abc import Awaitable, Callable, Sequence

from services.ingest import domain, metrics
from services.ingest.intake import Intake
from shared import ids
from shared.bus import Delivery
from shared.errors import AlreadyExists, InputError, TransientError
from shared.events import DatasetPointer, DatasetUploaded, Model, Origin
from shared.ledger import Entry
from shared.objects import ObjectStore
from shared.settings import Ingest as IngestSettings

log = logging.getLogger(__name__)

SEEN = "ingest/seen/"
INBOX = "ingest/inbox/"


class Announcement(Model):
    """A stranger's event, at rest until it was dealt with."""

    event: DatasetUploaded
    source: str
    traceparent: str | None = None


class Sweep:
    def __init__(
        self,
        objects: ObjectStore,
        intake: Intake,
        settings: IngestSettings,
        datasets_bucket: str,
        clock: Callable[[], float],
    ) -> None:
        self._objects = objects
        self._datasets = objects.at(datasets_bucket)
        self._intake = intake
        self._settings = settings
        self._clock = clock
        self._bell = asyncio.Event()
        self._seen: set[str] | None = None
        self._etags: dict[str, str] = {}
        """What the last sweep saw, to tell an object that is still being overwritten."""

    async def announced(self, event: DatasetUploaded, delivery: Delivery) -> None:
        """Take a stranger's event: durable when this returns, dealt with soon after.

        Raises:
            InputError: it points at nothing.
        """
        if event.job_id is not None:
            return  # one of our own
        if not await self._objects.at(event.dataset.bucket).exists(event.dataset.key):
            raise InputError(
                "file_not_found", f"There is no object {event.dataset.bucket}/{event.dataset.key}.", "dataset"
            )
        announcement = Announcement(event=event, source=delivery.source, traceparent=delivery.traceparent)
        name = ids.derive("announcement", delivery.source, delivery.ce_id)
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(INBOX + name, announcement.model_dump_json().encode())
        self._bell.set()

    async def run(self) -> None:
        """Sweep until cancelled: every few seconds, and at once when an event came."""
        while True:
            self._bell.clear()
            try:
                await self.once()
                metrics.sweeps.labels("completed").inc()
            except TransientError as error:
                metrics.sweeps.labels("cut_short").inc()
                log.warning("sweep cut short", extra={"reason": type(error).__name__})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._bell.wait(), self._settings.sweep_seconds)

    async def once(self) -> None:
        if self._seen is None:
            self._seen = {posixpath.basename(entry.key) for entry in await self._objects.list(SEEN)}
        for entry in await self._objects.list(INBOX):
            name = posixpath.basename(entry.key)
            if name not in self._seen:
                await self._take("event", name, self._take_announcement(entry.key))
        listing = await self._datasets.list("")
        sidecars = _sidecar_etags(listing)
        for entry in listing:
            if not domain.is_dataset(entry.key):
                continue
            before = self._etags.get(entry.key)
            self._etags[entry.key] = entry.etag
            name = ids.derive("drop", self._datasets.bucket, entry.key, entry.etag, sidecars.get(entry.key))
            if name in self._seen or not domain.settled(entry, before, self._clock(), self._settings.settle_seconds):
                continue
            await self._take("drop", name, self._take_drop(entry))

    async def _take(self, kind: str, name: str, taking: Awaitable[None]) -> None:
        assert self._seen is not None
        try:
            await taking
            metrics.taken.labels(kind, "job").inc()
        except InputError as error:
            # it vanished or changed between the listing and the reading: there is nothing to make a job of
            metrics.taken.labels(kind, "refused").inc()
            log.warning("not taken", extra={"reason": error.code})
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(SEEN + name, b"{}")
        self._seen.add(name)

    async def _take_drop(self, entry: Entry) -> None:
        pointer = DatasetPointer(bucket=self._datasets.bucket, key=entry.key)
        job = await self._intake.take(pointer, origin=Origin(kind="drop", source=f"s3://{pointer.bucket}"))
        metrics.seconds.observe(max(0.0, self._clock() - entry.modified))
        log.info("job made", extra={"job_id": job.job_id})

    async def _take_announcement(self, key: str) -> None:
        found = await self._objects.get(key)
        assert found is not None, "the inbox is never emptied"
        announcement = Announcement.model_validate_json(found[0])
        event = announcement.event
        origin = event.origin or Origin(kind="event", source=announcement.source)
        job = await self._intake.take(
            event.dataset,
            origin=origin,
            spec=event.spec,
            validation_file=event.validation_file,
            traceparent=announcement.traceparent,
        )
        log.info("job made", extra={"job_id": job.job_id})


def _sidecar_etags(listing: Sequence[Entry]) -> dict[str, str]:
    """The ETag of each dataset's sidecar: editing the settings asks for another job."""
    etags = {entry.key: entry.etag for entry in listing}
    return {
        entry.key: etags[sidecar] for entry in listing for sidecar in domain.sidecars_of(entry.key) if sidecar in etags
    }
