"""Keeps the projection up to date: applies every event, and reads the ledger for events that never arrived."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Sequence

from services.api import metrics
from services.api.database import DatabaseBroken, ProjectionDatabase
from services.api.domain.messages import messages
from services.api.domain.projection import Fact, Manifest, Occurred, ends, project
from services.api.domain.state import JobState
from services.api.ledger_reader import read_job
from shared.errors import StoreUnavailable, TransientError
from shared.events import Event, Job
from shared.kafka.bus import Delivery
from shared.stages.ledger import JOBS, Ledger

log = logging.getLogger(__name__)

UNFINISHED_SECONDS = 5.0
"""How often the ledger is asked about every job that has not ended. That takes two or three small reads per job."""
READERS = 8  # jobs that are read from the ledger at the same time


class Projection:
    """Applies events and what the ledger says to the database.

    `discover_seconds`: how often the whole ledger is listed for jobs that no event announced.
    """

    def __init__(
        self, database: ProjectionDatabase, ledger: Ledger, clock: Callable[[], float], discover_seconds: float
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._clock = clock
        self._discover_seconds = discover_seconds
        self._discover_at = 0.0
        self.complete = False
        """Whether the whole ledger has been read at least one time."""

    # --- the topics -------------------------------------------------------------------------------------------

    async def take(self, event: Event, delivery: Delivery) -> None:
        """Apply an event. One without a job id comes from outside: ingest makes a job of it and publishes it again.

        Raises:
            TransientError: the event could not be written. Deliver it again.
        """
        job_id = getattr(event, "job_id", None)
        if job_id is None:
            return
        # the event's own time, so that a rebuild gives the same history; an event without one gets its time of arrival
        at = delivery.time or self._clock()
        state = await self._apply(job_id, [*await self._before(event, job_id), Occurred(event, delivery.ce_id, at)])
        if state.manifest is None:
            await self.refresh(job_id)

    async def _before(self, event: Event, job_id: str) -> list[Fact]:
        """The earlier facts that the ledger has, if the event ends a stage.

        Events of different topics come in any order. A client that sees the end of a job reads its history only once
        more, so the history must be complete by then.
        """
        if ends(event):
            state = await self._database.job(job_id) or JobState(job_id=job_id)
            with contextlib.suppress(StoreUnavailable):
                return await read_job(self._ledger, state, self._clock())
        return []

    # --- the ledger -------------------------------------------------------------------------------------------

    async def refresh(self, job_id: str) -> JobState | None:
        """Apply what the ledger says of one job; None if neither the ledger nor the database knows it.

        Raises:
            TransientError: the ledger or the database is away.
        """
        known = await self._database.job(job_id)
        facts = await read_job(self._ledger, known or JobState(job_id=job_id), self._clock())
        return await self._apply(job_id, facts) if facts else known

    async def accept(self, job: Job) -> JobState:
        """Show a job that ingest is about to make. The request for it is in the ledger, and holds all of the manifest.

        Raises:
            TransientError: the database is away.
        """
        return await self._apply(job.job_id, [Manifest(job)])

    async def look_up(self, job_id: str) -> JobState | None:
        """A job from the database, or else from the ledger; None if there is none."""
        state = await self._database.job(job_id)
        if state is None or not state.visible:
            state = await self.refresh(job_id)
        return state if state and state.visible else None

    async def run(self) -> None:
        """Reconcile until cancelled.

        Raises:
            DatabaseBroken: the database does not work; the service must start again.
        """
        while True:
            try:
                await self.reconcile()
            except DatabaseBroken:
                raise
            except TransientError as error:
                log.warning("the ledger does not answer", extra={"reason": type(error).__name__})
            await asyncio.sleep(UNFINISHED_SECONDS)

    async def reconcile(self) -> None:
        """Read all unfinished jobs from the ledger; every `discover_seconds`, find jobs that no event announced."""
        now = self._clock()
        if now >= self._discover_at:
            known = await self._database.known()
            await self._refresh_all([name for name in await self._ledger.folders(JOBS) if name not in known])
            self._discover_at = now + self._discover_seconds
        await self._refresh_all(await self._database.unsettled())
        self.complete = True
        metrics.set_jobs(await self._database.counts())

    async def _refresh_all(self, job_ids: Sequence[str]) -> None:
        for start in range(0, len(job_ids), READERS):
            await asyncio.gather(*map(self._try_refresh, job_ids[start : start + READERS]))

    async def _try_refresh(self, job_id: str) -> None:
        try:
            await self.refresh(job_id)
        except TransientError:
            raise
        except Exception:  # one document that cannot be read must not hide the other jobs
            log.exception("a job cannot be read from the ledger", extra={"job_id": job_id})

    async def _apply(self, job_id: str, facts: Sequence[Fact]) -> JobState:
        added = [message for fact in facts for message in messages(fact)]
        return await self._database.update(
            job_id, lambda state: functools.reduce(project, facts, state), added, self._clock()
        )
