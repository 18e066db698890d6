"""Jobs that are tried again: the api stores what a user asks for, and this makes the new job, as ingest makes all jobs.

The stages adopt what the parent has decided (`shared/stages/adoption.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import socket
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from services.ingest.domain import jobs
from services.ingest.sweep import report
from shared import telemetry
from shared.errors import AlreadyExists, ConfigError, StoreRefused, TransientError
from shared.events import Job, JobControl, Quarantined, Retry, StageResult
from shared.kafka.bus import Delivery
from shared.retry import Backoff
from shared.stages import outbox, quarantine
from shared.stages.adoption import retry_of
from shared.stages.ledger import RETRIES, job_key, published_key
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between two looks while the bus is away, or something is not done: a user waits for it."""
IDLE_SECONDS = 30.0
"""Otherwise: the event of a request rings the bell, and a listing finds the one whose event was lost."""
FAILED_PAUSES = Backoff(POLL_SECONDS, 30.0)


class Retries:
    """Makes one job of each request below `ingest/retries/`. Every step may be repeated without harm."""

    def __init__(self, objects: ObjectStore, bus: Publisher) -> None:
        self._objects = objects
        self._bus = bus
        self._bell = asyncio.Event()
        self._owner = f"{socket.gethostname()}/{os.getpid()}"
        self._done: set[str] = set()
        """The keys with nothing left to do. It saves work; what is in the ledger counts."""
        self._unpublished: dict[str, StageResult] = {}
        """By key: the job is made, but its event is not out."""
        self._open = True
        """Whether a request was not done at the last look."""

    async def rung(self, event: JobControl, delivery: Delivery) -> None:
        """Look at once: `resume` says that a user wants a job to go on where another one ended."""
        if event.action == "resume":
            self._bell.set()

    async def run(self) -> None:
        """Make jobs until cancelled."""
        failures = 0
        while True:
            self._bell.clear()
            try:
                await self.make_jobs()
                failures = 0
            except Exception as error:  # the requests cannot be listed; none of them can do that
                failures += 1
                report("retries not read, trying again later", error)
            if failures:
                await asyncio.sleep(FAILED_PAUSES.jittered(failures))
            else:
                busy = self._open or self._bus.away_since is not None  # then nobody can ring
                await wait_for_event(self._bell, POLL_SECONDS if busy else IDLE_SECONDS)

    async def make_jobs(self) -> None:
        """Make the jobs of all new requests. First all jobs, then their events: the stages find a job in the ledger,
        too, so no job waits for the bus."""
        keys = {entry.key for entry in await self._objects.list(RETRIES)}
        self._done &= keys  # the janitor deletes requests that were handled long ago
        for key in sorted(keys - self._done - self._unpublished.keys()):
            await self._guarded(key, self._make)
        for key in list(self._unpublished):
            await self._guarded(key, self._publish)
        self._open = bool(self._unpublished) or not keys <= self._done

    async def _guarded(self, key: str, step: Callable[[str], Awaitable[None]]) -> None:
        """Take one step of one request. What goes wrong with it must not stop the others."""
        try:
            await step(key)
        except (TransientError, ConfigError, StoreRefused) as error:
            report("a retry waits", error)
        except Exception as error:
            # only this service's next start looks at it again: it is a bug, or somebody else has written the request
            log.exception("a job cannot be tried again")
            self._done.add(key)
            await self._hold(key, error)

    async def _hold(self, key: str, error: Exception) -> None:
        """Put a request into quarantine, for people to see. Raises nothing."""
        field = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else None
        about = Quarantined(
            kind="retry",
            place=quarantine.short(f"s3://{self._objects.bucket}/{key}"),
            field=quarantine.short(field) if field else None,
            reason=quarantine.short(str(error)) if type(error) is ValueError else f"unexpected {type(error).__name__}",
            remedy="ask for the retry again with `tunestream retry`",
            at=self._objects.now(),
        )
        try:
            await quarantine.hold(self._objects, posixpath.basename(key).removesuffix(".json"), about)
        except Exception as unwritten:
            report("the quarantine cannot be written", unwritten)

    async def _make(self, key: str) -> None:
        job_id = posixpath.basename(key).removesuffix(".json")
        if await self._objects.exists(published_key(job_id, "ingest")):
            self._done.add(key)
            return
        asked = Retry.model_validate_json(await self._read(key))
        parent = Job.model_validate_json(await self._read(job_key(asked.parent_job)))
        root = telemetry.JobRoot(asked.traceparent, links=(parent.traceparent,))
        job = retry_of(parent, asked, root.traceparent)
        if job.job_id != job_id:
            raise ValueError("the request of a retry is not under the id of its job")
        try:
            await self._objects.create(job_key(job_id), job.model_dump_json().encode())
            root.emit(job_id)
            log.info("job made", extra={"job_id": job_id})
        except AlreadyExists:  # made before, or a user has dropped the same dataset with the same `rerun` meanwhile
            job = Job.model_validate_json(await self._read(job_key(job_id)))
        with telemetry.span("ingest", job.traceparent, at=root.at, attributes={"tunestream.job_id": job_id}):
            event, now = jobs.uploaded(job), self._objects.now()
            mine = outbox.result_of(job_id, "ingest", 1, self._owner, "completed", event, now)
            self._unpublished[key] = await outbox.commit(self._objects, mine)

    async def _read(self, key: str) -> bytes:
        found = await self._objects.get(key)
        if found is None:
            raise ValueError("a document that is never deleted is missing")
        return found[0]

    async def _publish(self, key: str) -> None:
        await outbox.publish(self._objects, self._bus, self._unpublished[key], self._owner)
        del self._unpublished[key]
        self._done.add(key)
