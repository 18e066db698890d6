"""The stage runner: finds, claims and works on the requests of one stage.

Any number of processes may work on one stage, and any of them may die at any moment. Every job still gets exactly one
result of the stage, which is published at least once. See docs/architecture.md, "The stage protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from shared import ids
from shared.errors import Cancelled, InputError, LeaseLost, StoreUnavailable, TransientError
from shared.events import Event, Job, JobFailed, JobProgress, StageName, StageOutcome, StageResult
from shared.retry import Backoff
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.adoption import adopt
from shared.stages.lease import Lease
from shared.stages.ledger import JOBS, Ledger, attempt_prefix, control_prefix, job_key, stage_prefix
from shared.stages.publisher import Publisher
from shared.stages.requests import Missing, Request, Requests
from shared.stages.stage import Attempt, Stage, Work
from shared.tasks import cancel_and_wait, wait_for_event
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Span = Callable[[Job, StageName, int], AbstractContextManager[Callable[[str], None]]]
"""A context manager for one attempt (job, stage, number). It yields a function that is called with the outcome."""

PROGRESS_TIMEOUT = 5.0  # seconds; progress is best effort and must not delay the work
PROGRESS_SILENCE = 10.0  # seconds without another try after the bus did not accept progress


class StageRunner:
    """Finds, claims and works on the requests of one stage."""

    def __init__(
        self,
        stage: Stage,
        work: Work,
        *,
        ledger: Ledger,
        bus: Publisher,
        clock: Callable[[], float],
        owner: str,
        settings: StageSettings,
        span: Span = lambda job, stage, attempt: nullcontext(lambda outcome: None),
    ) -> None:
        self._stage = stage
        self._work = work
        self._ledger = ledger
        self._requests = Requests(ledger, stage)
        self._bus = bus
        self._clock = clock
        self._owner = owner
        self._settings = settings
        self._span = span
        self._bell = asyncio.Event()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._due: dict[str, float] = {}
        """The time of the next look at each unfinished job, in the order in which they were asked for."""
        self._queued: set[str] = set()
        """Jobs that are waiting for a slot."""
        self._finished: set[str] = set()
        self._advancing: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, float] = {}
        """When each job without a result was asked for."""
        self._attempts: dict[str, _Running] = {}
        """The jobs being worked on."""
        self._discover_at = 0.0

    # --- doorbells --------------------------------------------------------------------------------------------

    async def ask(self, event: Event) -> None:
        """Take an event that asks for this stage. When this returns, the request is durable.

        Raises:
            InputError: there is no such job; the event belongs in the dead-letter topic.
            TransientError: the ledger is away; the event must be delivered again.
        """
        job_id = str(getattr(event, "job_id", None))
        if await self._ledger.get(job_key(job_id)) is None:
            raise InputError("job_not_found", f"There is no job {job_id} in the ledger.", "job_id")
        await self._requests.create(job_id, event.model_dump(mode="json", exclude_none=True))
        self.ring(job_id)

    def ring(self, job_id: str) -> None:
        """Look at this job now, because it was asked for, or because its user wants something, such as to cancel it."""
        if job_id in self._finished:
            return
        self._due[job_id] = _NOW
        if running := self._attempts.get(job_id):
            running.bell.set()
        self._bell.set()

    @property
    def working(self) -> int:
        """Attempts under way."""
        return len(self._attempts)

    @property
    def pending(self) -> int:
        """Jobs that were asked for and have no result yet, in any process, as of the last look at each."""
        return len(self._asked)

    @property
    def oldest_pending(self) -> float:
        """Seconds since the oldest pending job was asked for; 0 if none is pending."""
        return max(0.0, self._clock() - min(self._asked.values())) if self._asked else 0.0

    # --- the loop ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. Then the attempts are stopped and their leases are given back."""
        try:
            while True:
                self._bell.clear()
                if self._clock() >= self._discover_at:
                    await self._discover()
                now = self._clock()
                for job_id, due in list(self._due.items()):
                    if due <= now and job_id not in self._advancing:
                        self._advancing[job_id] = asyncio.create_task(self._advance(job_id))
                await wait_for_event(self._bell, self._settings.poll_seconds)
        finally:
            await cancel_and_wait(*self._advancing.values())

    async def _discover(self) -> None:
        """List the ledger for jobs that no event announced: the message was lost, or the owner died."""
        try:
            for job_id in await self._ledger.folders(JOBS):
                if job_id not in self._finished:
                    self._due.setdefault(job_id, _NOW)
        except StoreUnavailable:
            log.warning("the ledger does not answer", extra={"stage": self._stage.name})
            return
        self._discover_at = self._clock() + self._settings.discover_seconds

    async def _advance(self, job_id: str) -> None:
        """Advance one job as far as possible, and note when to look at it again."""
        self._due[job_id] = _NEVER  # a ring from here on sets it to now
        again = self._clock() + self._settings.poll_seconds
        try:
            again = await self._step(job_id)
        except TransientError as error:
            log.warning("the job is looked at again later", extra={"job_id": job_id, "reason": type(error).__name__})
        except LeaseLost:
            log.warning("the lease was lost", extra={"job_id": job_id, "stage": self._stage.name})
        except Exception:
            log.exception("the stage protocol failed", extra={"job_id": job_id, "stage": self._stage.name})
        finally:
            del self._advancing[job_id]
            if again == _NEVER:
                self._due.pop(job_id, None)
                self._finished.add(job_id)
            elif self._due[job_id] != _NOW:
                self._due[job_id] = again
            self._bell.set()

    async def _step(self, job_id: str) -> float:
        """One look at a job. Returns the time of the next one, `_NEVER` when there is nothing left to do."""
        prefix = self._prefix(job_id)
        entries = {entry.key.removeprefix(prefix): entry for entry in await self._ledger.list(prefix)}
        names = set(entries)
        if "result.json" in names:
            self._asked.pop(job_id, None)
            if "published.json" not in names and (result := await outbox.read(self._ledger, job_id, self._stage.name)):
                await self._publish(result)
            return _NEVER
        found = await self._ledger.get(job_key(job_id))
        if found is None:
            return self._clock() + self._settings.discover_seconds
        job = Job.model_validate_json(found[0])
        if adopted := await adopt(self._ledger, job, self._stage.name, self._owner):
            await self._publish(adopted)
            return _NEVER
        request = await self._requests.find(job_id, created="request.json" in names)
        if request is Missing.NOT_YET:
            return self._clock() + self._settings.discover_seconds
        if request is Missing.NEVER:
            return _NEVER
        self._asked[job_id] = entries["request.json"].modified if "request.json" in names else self._clock()
        if await self._cancel_asked(job_id):
            await self._publish(await self._commit(job, 0, "cancelled", self._cancelled(job_id)))
            return _NEVER
        if self._slots.locked():
            self._queued.add(job_id)
            return self._clock() + self._settings.discover_seconds
        try:
            async with self._slots:
                return await self._attempt(job, request)
        finally:
            for waiting in self._queued:
                self._due[waiting] = _NOW
            self._queued.clear()

    # --- attempts ---------------------------------------------------------------------------------------------

    async def _attempt(self, job: Job, request: Request) -> float:
        key = self._prefix(job.job_id) + "claim.json"
        lease = await Lease.take(self._ledger, key, self._owner, self._clock(), self._settings.lease_seconds)
        if lease is None:
            return self._clock() + self._settings.poll_seconds
        number = lease.claim.attempt
        prefix = attempt_prefix(job.job_id, self._stage.name, number)
        attempt = Attempt(job, request, self._stage.name, number, prefix, self._progress_publisher(job, number))
        log.info("stage started", extra={"job_id": job.job_id, "stage": self._stage.name, "attempt": number})
        running = self._attempts[job.job_id] = _Running(since=self._clock())
        metrics.stage_attempts.labels(self._stage.name).inc()

        async def check() -> None:
            if await self._cancel_asked(job.job_id):
                raise Cancelled(job.job_id)

        try:
            with self._span(job, self._stage.name, number) as ended:
                async with lease.held(self._settings.lease_seconds, self._clock, bell=running.bell, check=check):
                    await attempt.progress("started", f"{self._stage.name} started")
                    outcome, event = await self._outcome(attempt)
                    result = await self._commit(job, number, outcome, event)
                ended(result.outcome)
        except Cancelled:
            result = await self._commit(job, number, "cancelled", self._cancelled(job.job_id))
        except asyncio.CancelledError:  # the service stops: let a successor begin at once
            with contextlib.suppress(LeaseLost, TransientError):
                await lease.give_back()
            raise
        except LeaseLost:
            metrics.stage_retries.labels(self._stage.name, "lease_lost").inc()
            raise
        except Exception as error:
            return await self._retry_later(attempt, lease, error)
        finally:
            del self._attempts[job.job_id]
        await self._publish(result)
        return _NEVER

    async def _outcome(self, attempt: Attempt) -> tuple[StageOutcome, Event]:
        if attempt.number > self._settings.max_deaths:
            # a job that kills its worker process must not do so forever
            message = f"{attempt.stage} was tried {attempt.number - 1} times and never ended."
            return "failed", self._failure(attempt.job.job_id, "too_many_attempts", message)
        try:
            return "completed", await self._work(attempt)
        except InputError as error:
            return "failed", self._failure(attempt.job.job_id, error.code, error.message, error.param)

    async def _retry_later(self, attempt: Attempt, lease: Lease, error: Exception) -> float:
        """Back off, and count the failure in the claim, where the count outlives this process. Too many bugs fail the
        job. Returns the time of the next try."""
        job_id, stage = attempt.job.job_id, attempt.stage
        transient = isinstance(error, TransientError)
        bugs, failures = lease.claim.bugs + (not transient), lease.claim.failures + transient
        log.warning(
            "attempt failed",
            exc_info=None if transient else error,
            extra={"job_id": job_id, "stage": stage, "reason": type(error).__name__},
        )
        if bugs >= self._settings.max_bugs:
            message = f"{stage} failed {bugs} times with {type(error).__name__}; look for {job_id} in its log."
            failure = self._failure(job_id, "internal_error", message)
            await self._publish(await self._commit(attempt.job, attempt.number, "failed", failure))
            return _NEVER
        metrics.stage_retries.labels(stage, "transient" if transient else "bug").inc()
        pause = Backoff(1.0, self._settings.max_backoff_seconds).pause(bugs + failures)
        await attempt.progress("retrying", f"{stage} is tried again in {pause:.0f} s", data={"seconds": pause})
        until = self._clock() + pause
        await lease.give_back(not_before=until, bugs=bugs, failures=failures)
        return until

    # --- results ----------------------------------------------------------------------------------------------

    async def _commit(self, job: Job, number: int, outcome: StageOutcome, event: Event) -> StageResult:
        now = self._clock()
        mine = outbox.result_of(job.job_id, self._stage.name, number, self._owner, outcome, event, now)
        result = await outbox.commit(self._ledger, mine)
        self._asked.pop(job.job_id, None)
        if result is mine:
            metrics.stage_results.labels(result.stage, result.outcome).inc()
            if running := self._attempts.get(job.job_id):
                metrics.stage_seconds.labels(result.stage, result.outcome).observe(now - running.since)
        return result

    async def _publish(self, result: StageResult) -> None:
        await outbox.publish(self._ledger, self._bus, result, self._owner)

    def _progress_publisher(self, job: Job, number: int) -> Callable[[JobProgress], Awaitable[None]]:
        count = 0
        silent_until = 0.0

        async def publish(event: JobProgress) -> None:
            nonlocal count, silent_until
            if self._clock() < silent_until:
                return
            count += 1
            ce_id = ids.event_id(job.job_id, event.topic, self._stage.name, number, count)
            try:
                async with asyncio.timeout(PROGRESS_TIMEOUT):
                    await self._bus.publish(event, ce_id=ce_id, subject=job.job_id, traceparent=job.traceparent)
            except (TransientError, TimeoutError):
                silent_until = self._clock() + PROGRESS_SILENCE

        return publish

    # --- small things -----------------------------------------------------------------------------------------

    def _prefix(self, job_id: str) -> str:
        return stage_prefix(job_id, self._stage.name)

    async def _cancel_asked(self, job_id: str) -> bool:
        return bool(await self._ledger.list(control_prefix(job_id) + "cancel"))

    def _failure(self, job_id: str, code: str, message: str, param: str | None = None) -> JobFailed:
        return JobFailed(job_id=job_id, stage=self._stage.name, code=code, message=message, param=param)

    def _cancelled(self, job_id: str) -> JobFailed:
        return self._failure(job_id, "cancelled", "The job was cancelled.")


@dataclass(frozen=True)
class _Running:
    """An attempt under way: when it began, and the event that makes it check whether the job was cancelled."""

    since: float
    bell: asyncio.Event = field(default_factory=asyncio.Event)


_NOW = 0.0
_NEVER = float("inf")
