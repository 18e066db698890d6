"""`dataset.uploaded` events of other programs. Each is stored first and handled later, so that the consumer never waits
while a dataset is read."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import posixpath

from pydantic import ValidationError

from services.ingest.deduplicator import Deduplicator, Gone
from services.ingest.domain import datasets
from services.ingest.intake import Intake, Made
from services.ingest.quarantine import Item
from services.ingest.sweep import report
from shared import ids
from shared.drops import INBOX
from shared.errors import AlreadyExists, ConfigError, InputError, StoreRefused, TransientError, TunestreamError
from shared.events import DatasetUploaded, FrozenModel, Origin
from shared.jobs.explain import explained
from shared.kafka.bus import Delivery
from shared.retry import Backoff
from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

POLL_SECONDS = 5.0
"""Between two looks while something is new, or is to be tried again."""
IDLE_SECONDS = 60.0
"""Otherwise: every announcement rings the bell, and a listing finds those that a dead replica left behind."""
FAILED_PAUSES = Backoff(POLL_SECONDS, 30.0)


class Announcement(FrozenModel):
    """Another program's event, as it is kept in the store."""

    event: DatasetUploaded
    source: str
    traceparent: str | None = None


class Inbox:
    """Keeps announcements below `ingest/inbox/` and makes one job of each. The janitor deletes those that were handled
    long ago."""

    def __init__(self, objects: ObjectStore, intake: Intake, deduplicator: Deduplicator) -> None:
        self._objects = objects
        self._intake = intake
        self._deduplicator = deduplicator
        self._bell = asyncio.Event()

    async def announced(self, event: DatasetUploaded, delivery: Delivery) -> None:
        """Accept an event: it is durable when this returns, and its job is made soon after.

        Raises:
            InputError: there is no object where the event points, or it may not be used, or the event cannot be stored.
            TransientError: it could not be stored now.
        """
        if event.job_id is not None:
            return  # an event that ingest sent itself
        datasets.check_dataset(event.dataset, self._objects.bucket)
        if not await self._is_there(event):
            raise InputError(
                "file_not_found", f"There is no object {event.dataset.bucket}/{event.dataset.key}.", "dataset"
            )
        name = ids.derive("announcement", delivery.source, delivery.ce_id)
        try:
            with contextlib.suppress(AlreadyExists):
                await self._objects.create(INBOX + name, _stored(event, delivery))
        except (ConfigError, StoreRefused) as error:
            # nothing is wrong with the event: it comes again until it can be stored
            report("an event cannot be stored", error)
            raise TransientError("the inbox cannot be written") from None
        self._bell.set()

    async def _is_there(self, event: DatasetUploaded) -> bool:
        try:
            return await self._objects.at(event.dataset.bucket).exists(event.dataset.key)
        except (ConfigError, StoreRefused):
            return True  # nobody may look; what comes of it is decided when the job is made

    async def run(self) -> None:
        """Make jobs of announcements until cancelled: as soon as one arrives, and every few seconds."""
        failures = 0
        while True:
            self._bell.clear()
            try:
                busy = await self.make_jobs()
            except Exception as error:  # the inbox cannot be listed, or the whole store fails; no event can do that
                failures += 1
                report("inbox not read, trying again later", error)
                await asyncio.sleep(FAILED_PAUSES.jittered(failures))
                continue
            failures = 0
            await wait_for_event(self._bell, POLL_SECONDS if busy or self._deduplicator.restless else IDLE_SECONDS)

    async def make_jobs(self) -> bool:
        """Make the jobs of all new announcements. Whether there were any.

        Raises:
            StoreUnavailable, StoreRefused, ConfigError: the inbox cannot be listed, or the store fails as a whole.
        """
        busy = False
        for entry in await self._objects.list(INBOX):
            try:
                busy |= await self._look(entry)
            except TunestreamError:
                raise  # the store as a whole
            except Exception as error:
                report("an event cannot be looked at", error)
        return busy

    async def _look(self, entry: Entry) -> bool:
        name = posixpath.basename(entry.key)
        item = Item("event", name, place=f"s3://{self._objects.bucket}/{entry.key}", origin=name)

        async def make() -> Made:
            found = await self._objects.get(entry.key)
            if found is None:
                raise Gone
            try:
                announcement = Announcement.model_validate_json(found[0])
            except ValidationError as error:
                wrong = explained(error, Announcement)[0]
                raise InputError("invalid_event", f"{wrong.field}: {wrong.reason}", wrong.field or None) from None
            event = announcement.event
            item.place = f"s3://{event.dataset.bucket}/{event.dataset.key}"
            return await self._intake.create_job(
                event.dataset,
                origin=event.origin or Origin(kind="event", source=announcement.source),
                spec=event.spec,
                validation_file=event.validation_file,
                traceparent=announcement.traceparent,
            )

        return await self._deduplicator.handle_new(item, make)


def _stored(event: DatasetUploaded, delivery: Delivery) -> bytes:
    """An event as it is kept.

    Raises:
        InputError: it could not be read again: infinite numbers and halves of surrogate pairs have no place in JSON.
    """
    announcement = Announcement(event=event, source=delivery.source, traceparent=delivery.traceparent)
    try:
        data = announcement.model_dump_json().encode()
        Announcement.model_validate_json(data)
    except ValueError as error:
        wrong = error.errors(include_url=False)[0]["loc"] if isinstance(error, ValidationError) else ()
        field = ".".join(map(str, wrong)).removeprefix("event.") or None
        raise InputError("invalid_event", "The event holds a value that JSON cannot hold.", field) from None
    return data
