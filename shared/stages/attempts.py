"""Attempts at the jobs of one stage: the claim, the work under its lease, and what follows from how it ends. See
docs/architecture.md, "The stage protocol"."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from shared import control, ids
from shared.control import Control
from shared.errors import AlreadyExists, Cancelled, ConfigError, InputError, LeaseLost, Paused, TransientError
from shared.events import Event, Job, JobFailed, JobProgress, StageName, StageOutcome, StageResult
from shared.settings import StageSettings
from shared.stages import failures, outbox
from shared.stages.lease import Claims, Lease
from shared.stages.ledger import Ledger, attempt_prefix, claim_key, decision_key
from shared.stages.outbox import Outbox
from shared.stages.requests import Request
from shared.stages.stage import Attempt, Stage, Work
from shared.telemetry import metrics

log = logging.getLogger(__name__)

Span = Callable[[Job, StageName, int], AbstractContextManager[Callable[[str], None]]]
"""A context manager for one attempt (job, stage, number). It yields a function that is called with the outcome."""

GIVE_BACK_SECONDS = 5.0
"""How long a claim is tried to be given back."""


def no_span(job: Job, stage: StageName, attempt: int) -> AbstractContextManager[Callable[[str], None]]:
    return nullcontext(lambda outcome: None)


@dataclass(frozen=True)
class AskedJob:
    """A job that the stage was asked for. The least `order` is first: when it was asked for (by the ledger's clock),
    then when it was made."""

    job: Job
    request: Request
    order: tuple[float, float]


class Attempts:
    """Makes attempts at jobs."""

    def __init__(
        self,
        stage: Stage,
        work: Work,
        *,
        ledger: Ledger,
        claims: Claims,
        outbox: Outbox,
        owner: str,
        settings: StageSettings,
        span: Span,
    ) -> None:
        self._stage = stage
        self._work = work
        self._ledger = ledger
        self._claims = claims
        self._outbox = outbox
        self._owner = owner
        self._settings = settings
        self._span = span
        self.waiting: dict[str, failures.Cause] = {}
        """The jobs that wait because of something outside, and the kind of their cause."""

    async def make(self, asked: AskedJob, bell: asyncio.Event) -> float | None:
        """Claim the job and work on it. `bell` makes the attempt look at once for what the user asked for.

        Returns the seconds until the next look at the job; None: the stage is decided.

        Raises:
            LeaseLost: another owner took over.
            TransientError: the ledger does not answer.
        """
        key = claim_key(asked.job.job_id, self._stage.name)
        taking = asyncio.ensure_future(self._claims.take(key, self._owner, self._settings.lease_seconds))
        try:
            lease = await asyncio.shield(taking)
            if lease is None:
                return self._settings.poll_seconds
            if await outbox.read(self._ledger, asked.job.job_id, self._stage.name):
                return 0.0  # the result landed between the look and the claim
            return await self._work_on(asked, lease, bell)
        except asyncio.CancelledError:  # the service stops: let a successor begin at once
            await failures.give_back_taken(taking, GIVE_BACK_SECONDS)
            raise

    async def cancel_if_asked(self, job_id: str, wanted: Control) -> bool:
        """End a job that waits for its turn, if its user wants that. Whether it was ended."""
        if not wanted.cancelled or await self._goes_on(job_id, False):
            return False
        await self._commit(job_id, 0, "cancelled", self._cancelled(job_id))
        return True

    async def refuse(self, failure: JobFailed) -> None:
        """End a job that nobody can work on."""
        await self._commit(failure.job_id, 0, "failed", failure)

    async def _work_on(self, asked: AskedJob, lease: Lease, bell: asyncio.Event) -> float | None:
        job, number, began = asked.job, lease.claim.attempt, _monotonic()
        attempt = self._describe(asked, lease)
        log.info("stage started", extra={"job_id": job.job_id, "stage": self._stage.name, "attempt": number})
        metrics.stage_attempts.labels(self._stage.name).inc()

        try:
            with self._span(job, self._stage.name, number) as ended:
                async with lease.held(bell=bell, check=lambda: self._obey(job.job_id)):
                    await self._obey(job.job_id)
                    await attempt.progress("started", f"{self._stage.name} started")
                    outcome, event = await self._outcome(attempt, lease.claim.deaths)
                # without the lease: creating the result once is safe, and no outage may cost finished work
                result = await self._commit(job.job_id, number, outcome, event, began)
                ended(result.outcome)
        except Cancelled:
            await self._commit(job.job_id, number, "cancelled", self._cancelled(job.job_id), began)
        except Paused:
            log.info("the job is paused", extra={"job_id": job.job_id, "stage": self._stage.name})
            await failures.give_back(lease, GIVE_BACK_SECONDS, paused=True)
            return 0.0  # it may have been resumed meanwhile
        except LeaseLost:
            metrics.stage_retries.labels(self._stage.name, "lease_lost").inc()
            raise
        except (TransientError, ConfigError) as error:
            return await self._wait(attempt, lease, error, began)
        except Exception as error:
            return await self._try_again(attempt, lease, error, began)
        return None

    def _describe(self, asked: AskedJob, lease: Lease) -> Attempt:
        job, stage, number = asked.job, self._stage.name, lease.claim.attempt
        count = itertools.count(1)

        async def publish(event: JobProgress) -> None:
            if lease.claim.given_back or not lease.in_doubt:
                ce_id = ids.event_id(job.job_id, event.topic, stage, number, next(count))
                self._outbox.progress(event, ce_id=ce_id, traceparent=job.traceparent)

        async def go_on() -> None:
            await self._obey(job.job_id)
            if not await self._goes_on(job.job_id, True):
                raise Cancelled(job.job_id)

        prefix = attempt_prefix(job.job_id, stage, number)
        return Attempt(
            job, asked.request, stage, number, prefix, publish, lease.certain, lambda: lease.abandoned, go_on
        )

    async def _outcome(self, attempt: Attempt, deaths: int) -> tuple[StageOutcome, Event]:
        if deaths >= self._settings.max_deaths:
            # a job that kills its worker process must not do so forever
            return "failed", failures.killer(attempt.job.job_id, self._stage.name, deaths)
        try:
            return "completed", await self._work(attempt)
        except InputError as error:
            return "failed", self._failure(attempt.job.job_id, error.code, error.message, error.param)

    async def _wait(self, attempt: Attempt, lease: Lease, error: TransientError | ConfigError, began: float) -> float:
        """Give the claim back until the cause may be mended; that is tried for ever. Returns the seconds until the next
        try."""
        job_id = attempt.job.job_id
        wait = failures.wait_for(error, lease, _monotonic() - began, self._settings.max_backoff_seconds)
        log.warning("the job waits", extra={"job_id": job_id, "stage": self._stage.name, "reason": wait.reason})
        metrics.stage_retries.labels(self._stage.name, wait.cause).inc()
        self.waiting[job_id] = wait.cause
        said = {"failures": wait.failures, "waiting_for": wait.reason, "waiting_since": wait.since}
        await failures.give_back(lease, GIVE_BACK_SECONDS, pause=wait.seconds, **said)
        data = {"cause": wait.cause, "seconds": wait.seconds, "since": wait.since}
        await attempt.progress("waiting", wait.reason, data=data)
        return wait.seconds

    async def _try_again(self, attempt: Attempt, lease: Lease, error: Exception, began: float) -> float | None:
        """Count a bug in the claim, where the count outlives this process; too many fail the job. Returns the seconds
        until the next try."""
        job_id, stage, bugs = attempt.job.job_id, self._stage.name, lease.claim.bugs + 1
        about = {"job_id": job_id, "stage": stage, "reason": type(error).__name__}
        log.warning("attempt failed", exc_info=error, extra=about)
        if bugs >= self._settings.max_bugs:
            await self._commit(job_id, attempt.number, "failed", failures.bug(job_id, stage, bugs, error), began)
            return None
        metrics.stage_retries.labels(stage, "bug").inc()
        pause = failures.pause(bugs, self._settings.max_backoff_seconds)
        await failures.give_back(lease, GIVE_BACK_SECONDS, pause=pause, bugs=bugs)
        await attempt.progress("retrying", f"{stage} is tried again in {pause:.0f} s", data={"seconds": pause})
        return pause

    async def _commit(
        self, job_id: str, number: int, outcome: StageOutcome, event: Event, began: float | None = None
    ) -> StageResult:
        """Decide the stage, and queue its event. `began`: when the attempt began (monotonic)."""
        mine = outbox.result_of(job_id, self._stage.name, number, self._owner, outcome, event, self._ledger.now())
        result = await outbox.commit(self._ledger, mine)
        self.waiting.pop(job_id, None)
        if result is mine:
            metrics.stage_results.labels(result.stage, result.outcome).inc()
            if began is not None:
                metrics.stage_seconds.labels(result.stage, result.outcome).observe(_monotonic() - began)
        self._outbox.result(result)
        return result

    async def _obey(self, job_id: str) -> None:
        """Return if the user wants an attempt to go on, or if one has passed its point of no return.

        Raises:
            Cancelled, Paused: the user wants the job to end, or to rest.
            TransientError: the ledger does not answer.
        """
        wanted = await control.read(self._ledger, job_id)
        if wanted.cancelled and not await self._goes_on(job_id, False):
            raise Cancelled(job_id)
        if wanted.paused and await self._ledger.get(decision_key(job_id, self._stage.name)) is None:
            raise Paused(job_id)

    async def _goes_on(self, job_id: str, wanted: bool) -> bool:
        """Whether the stage goes on to its end, or else ends as cancelled. Who asks first gets what is `wanted`; all
        others, in any process, get the same answer. Without that, a cancel could be obeyed while what cannot be undone
        is being done."""
        key = decision_key(job_id, self._stage.name)
        try:
            await self._ledger.create(key, json.dumps({"goes_on": wanted}).encode())
        except AlreadyExists:
            return not wanted
        return wanted

    def _failure(self, job_id: str, code: str, message: str, param: str | None = None) -> JobFailed:
        return JobFailed(job_id=job_id, stage=self._stage.name, code=code, message=message, param=param)

    def _cancelled(self, job_id: str) -> JobFailed:
        return self._failure(job_id, "cancelled", "The job was cancelled.")


def _monotonic() -> float:
    return asyncio.get_running_loop().time()
