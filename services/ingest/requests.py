"""Jobs that users ask the api for: it stores each request, and this makes the job, as ingest makes all jobs.

- `ingest/asked/`: a new job, whose manifest is in the request.
- `ingest/retries/`: a job that is tried again. The stages adopt what the parent has decided
  (`shared/stages/adoption.py`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import socket
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from services.ingest.preparation import Preparation
from services.ingest.sweep import report
from shared import ids, telemetry
from shared.errors import AlreadyExists, ConfigError, InputError, StoreRefused, TransientError
from shared.events import Asked, Job, JobControl, Quarantined, Retry, StageResult
from shared.jobs import manifest
from shared.kafka.bus import Delivery
from shared.retry import Backoff
from shared.stages import outbox, quarantine
from shared.stages.adoption import retry_of
from shared.stages.ledger import ASKED, RETRIES, job_key, published_key
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore
from shared.tasks import Patience, wait_for_event

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between two looks while the bus is away, or something is not done: a user waits for it."""
IDLE_SECONDS = 30.0
"""Otherwise: the event of a request rings the bell, and a listing finds the one whose event was lost."""
FAILED_PAUSES = Backoff(POLL_SECONDS, 30.0)
PATIENCE_SECONDS = 2.0
"""A job whose files have to be converted takes longer, and is made beside the others."""
KINDS = {ASKED: ("job", "ask for the job again"), RETRIES: ("retry", "ask for the retry again with `tunestream retry`")}
"""By prefix: what a request in quarantine is called, and what to do about it."""


class Requests:
    """Makes one job of each request. Every step may be repeated without harm."""

    def __init__(
        self,
        objects: ObjectStore,
        bus: Publisher,
        preparation: Preparation | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._preparation = preparation
        self._patience = Patience(patience, lambda error: report("a request for a job waits", error))
        self._underway: set[str] = set()
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
        """Look at once: `resume` says that a user asks for a job."""
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
                report("requests not read, trying again later", error)
            if failures:
                await asyncio.sleep(FAILED_PAUSES.jittered(failures))
            else:
                busy = self._open or self._bus.away_since is not None  # then nobody can ring
                await wait_for_event(self._bell, POLL_SECONDS if busy else IDLE_SECONDS)

    async def make_jobs(self) -> None:
        """Make the jobs of all new requests. First all jobs, then their events: the stages find a job in the ledger,
        too, so no job waits for the bus."""
        listed = [entry for prefix in KINDS for entry in await self._objects.list(prefix)]
        listed.sort(key=lambda entry: (entry.modified, entry.key))  # who asked first is served first
        keys = [entry.key for entry in listed]
        self._done &= set(keys)  # the janitor deletes requests that were handled long ago
        for key in keys:
            if key not in self._done | self._unpublished.keys() | self._underway:
                self._underway.add(key)
                await self._patience.wait(self._made(key), otherwise=None)
        for key in list(self._unpublished):
            await self._guarded(key, self._publish)
        self._open = bool(self._unpublished) or not self._done.issuperset(keys)

    async def _made(self, key: str) -> None:
        try:
            await self._guarded(key, self._make)
        finally:
            self._underway.discard(key)
        if key in self._unpublished:
            self._bell.set()  # if it took long, nobody publishes it otherwise

    async def _guarded(self, key: str, step: Callable[[str], Awaitable[None]]) -> None:
        """Take one step of one request. What goes wrong with it must not stop the others."""
        try:
            await step(key)
        except (TransientError, ConfigError, StoreRefused) as error:
            report("a request for a job waits", error)
        except Exception as error:
            # only this service's next start looks at it again: it is a bug, or somebody else has written the request
            log.exception("a request cannot become a job")
            self._done.add(key)
            await self._hold(key, error)

    async def _hold(self, key: str, error: Exception) -> None:
        """Put a request into quarantine, for people to see. Raises nothing."""
        field = ".".join(map(str, error.errors()[0]["loc"])) if isinstance(error, ValidationError) else None
        kind, remedy = KINDS[_prefix_of(key)]
        about = Quarantined(
            kind=kind,
            place=quarantine.short(f"s3://{self._objects.bucket}/{key}"),
            field=quarantine.short(field) if field else None,
            reason=quarantine.short(str(error)) if type(error) is ValueError else f"unexpected {type(error).__name__}",
            remedy=remedy,
            at=self._objects.now(),
        )
        try:
            await quarantine.hold(self._objects, _job_id_of(key), about)
        except Exception as unwritten:
            report("the quarantine cannot be written", unwritten)

    async def _make(self, key: str) -> None:
        job_id = _job_id_of(key)
        if await self._objects.exists(published_key(job_id, "ingest")):
            self._done.add(key)
            return
        root: telemetry.JobRoot | None = None
        if _prefix_of(key) == ASKED:
            job = Asked.model_validate_json(await self._read(key)).job  # the api has made the root of its trace
        else:
            root, job = await self._retry(key)
        dataset = job.dataset
        place = dataset.bucket, dataset.key, dataset.sha256
        if job_id != job.job_id or job_id != ids.job_id(*place, ids.as_derived(job_id, *place, job.spec)):
            raise ValueError("a request for a job is not under the id of its job")
        job, problem = await self._prepared(job)
        try:
            await self._objects.create(job_key(job_id), job.model_dump_json().encode())
            if root:
                root.emit(job_id)
            log.info("job made", extra={"job_id": job_id})
        except AlreadyExists:  # made before, or a user has dropped the same dataset with the same `rerun` meanwhile
            job = Job.model_validate_json(await self._read(job_key(job_id)))
        at = root.at if root else None
        with telemetry.span("ingest", job.traceparent, at=at, attributes={"tunestream.job_id": job_id}):
            outcome, event = manifest.decided(job, problem)
            mine = outbox.result_of(job_id, "ingest", 1, self._owner, outcome, event, self._objects.now())
            self._unpublished[key] = await outbox.commit(self._objects, mine)

    async def _prepared(self, job: Job) -> tuple[Job, InputError | None]:
        """The job with files that the validator reads; a retry has those of its parent."""
        if self._preparation is None or job.prepared or job.origin.from_stage:
            return job, None
        if await self._objects.exists(job_key(job.job_id)):
            return job, None
        try:
            return await self._preparation.prepare(job), None
        except InputError as error:
            return job, error

    async def _retry(self, key: str) -> tuple[telemetry.JobRoot, Job]:
        """The manifest of a retry, and the root of its trace."""
        asked = Retry.model_validate_json(await self._read(key))
        parent = Job.model_validate_json(await self._read(job_key(asked.parent_job)))
        root = telemetry.JobRoot(asked.traceparent, links=(parent.traceparent,))
        return root, retry_of(parent, asked, root.traceparent)

    async def _read(self, key: str) -> bytes:
        found = await self._objects.get(key)
        if found is None:
            raise ValueError("a document that is never deleted is missing")
        return found[0]

    async def _publish(self, key: str) -> None:
        await outbox.publish(self._objects, self._bus, self._unpublished[key], self._owner)
        del self._unpublished[key]
        self._done.add(key)


def _job_id_of(key: str) -> str:
    return posixpath.basename(key).removesuffix(".json")


def _prefix_of(key: str) -> str:
    return next(prefix for prefix in KINDS if key.startswith(prefix))
