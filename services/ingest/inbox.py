"""`dataset.uploaded` events of other programs. Each is stored first and handled later, so that the consumer never waits
while a dataset is read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
from functools import partial

from services.ingest.deduplicator import Deduplicator
from services.ingest.intake import Intake
from shared import ids
from shared.errors import AlreadyExists, ConfigError, InputError, TransientError
from shared.events import DatasetUploaded, FrozenModel, Job, Origin
from shared.kafka.bus import Delivery
from shared.store.objects import ObjectStore
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

INBOX = "ingest/inbox/"
POLL_SECONDS = 5.0  # every announcement rings the bell; listing finds those that a dead replica left behind


class Announcement(FrozenModel):
    """Another program's event, as it is kept in the store."""

    event: DatasetUploaded
    source: str
    traceparent: str | None = None


class Inbox:
    """Keeps announcements below `ingest/inbox/` and makes one job of each. They are never deleted."""

    def __init__(self, objects: ObjectStore, intake: Intake, deduplicator: Deduplicator) -> None:
        self._objects = objects
        self._intake = intake
        self._deduplicator = deduplicator
        self._bell = asyncio.Event()

    async def announced(self, event: DatasetUploaded, delivery: Delivery) -> None:
        """Accept an event: it is durable when this returns, and its job is made soon after.

        Raises:
            InputError: there is no object where the event points.
        """
        if event.job_id is not None:
            return  # an event that ingest sent itself
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
        """Make jobs of announcements until cancelled: as soon as one arrives, and every few seconds."""
        while True:
            self._bell.clear()
            try:
                await self.make_jobs()
            except TransientError as error:
                log.warning("inbox not read, trying again later", extra={"reason": type(error).__name__})
            await wait_for_event(self._bell, POLL_SECONDS)

    async def make_jobs(self) -> None:
        """Make the jobs of all new announcements."""
        for entry in await self._objects.list(INBOX):
            try:
                await self._deduplicator.handle_new(
                    "event", posixpath.basename(entry.key), partial(self._create, entry.key)
                )
            except ConfigError as error:
                # an event may name a place that this service may not read, and that must not end the service
                log.warning("no job made", extra={"reason": type(error).__name__})

    async def _create(self, key: str) -> Job:
        found = await self._objects.get(key)
        assert found is not None, "the inbox is never emptied"
        announcement = Announcement.model_validate_json(found[0])
        event = announcement.event
        return await self._intake.create_job(
            event.dataset,
            origin=event.origin or Origin(kind="event", source=announcement.source),
            spec=event.spec,
            validation_file=event.validation_file,
            traceparent=announcement.traceparent,
        )
