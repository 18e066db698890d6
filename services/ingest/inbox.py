"""What strangers announced: durable first, dealt with after, so that Kafka never waits until a dataset is read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath
from functools import partial

from services.ingest.intake import Intake
from services.ingest.taking import Taking
from shared import ids
from shared.bus import Delivery
from shared.errors import AlreadyExists, ConfigError, InputError, TransientError
from shared.events import DatasetUploaded, FrozenModel, Job, Origin
from shared.objects import ObjectStore
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

INBOX = "ingest/inbox/"
LOOK_SECONDS = 5.0  # the bell rings for every announcement; looking finds what a dead replica left


class Announcement(FrozenModel):
    """A stranger's event, at rest until it was dealt with."""

    event: DatasetUploaded
    source: str
    traceparent: str | None = None


class Inbox:
    def __init__(self, objects: ObjectStore, intake: Intake, taking: Taking) -> None:
        self._objects = objects
        self._intake = intake
        self._taking = taking
        self._bell = asyncio.Event()

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
        """Deal with announcements until cancelled: at once when one came, and every few seconds."""
        while True:
            self._bell.clear()
            try:
                await self.once()
            except TransientError as error:
                log.warning("inbox left for later", extra={"reason": type(error).__name__})
            await wait_for_event(self._bell, LOOK_SECONDS)

    async def once(self) -> None:
        for entry in await self._objects.list(INBOX):
            try:
                await self._taking.once("event", posixpath.basename(entry.key), partial(self._take, entry.key))
            except ConfigError as error:
                # a stranger may name a place where this service may not read: that must not end the service
                log.warning("not taken", extra={"reason": type(error).__name__})

    async def _take(self, key: str) -> Job:
        found = await self._objects.get(key)
        assert found is not None, "the inbox is never emptied"
        announcement = Announcement.model_validate_json(found[0])
        event = announcement.event
        return await self._intake.take(
            event.dataset,
            origin=event.origin or Origin(kind="event", source=announcement.source),
            spec=event.spec,
            validation_file=event.validation_file,
            traceparent=announcement.traceparent,
        )
