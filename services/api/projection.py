"""Keeps the projection up to date: applies every event, and reads the ledger for events that never arrived.

Without Kafka the ledger alone tells of every job and of every stage, some seconds later.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from services.api import metrics
from services.api.database import DatabaseBroken, ProjectionDatabase
from services.api.domain.messages import Message, messages
from services.api.domain.notes import Note, notes
from services.api.domain.open_work import entry_of
from services.api.domain.projection import Fact, Manifest, Occurred, ends, project
from services.api.domain.state import JobState
from services.api.ledger_reader import LedgerReader
from services.api.rhythm import Rhythm
from shared.errors import ConfigError, InputError, StoreUnavailable, TransientError
from shared.events import Event, Job
from shared.ids import is_job_id
from shared.kafka.bus import Delivery
from shared.stages.ledger import ASKED, JOBS, PENDING, Ledger
from shared.tasks import cancel_and_wait

log = logging.getLogger(__name__)
T = TypeVar("T")

UNFINISHED_SECONDS = 5.0
"""How often the ledger is asked about jobs that have not ended. That takes two or three small reads per job. While the
bus is away all of them are read each time."""
MOST_UNFINISHED = 4
"""While the bus is there: how many of them are read each time. The events tell the rest."""
LOOK_SECONDS = 15.0
"""How often the index of open work is listed while the bus is there: for jobs whose event got lost."""
LISTED_SECONDS = 3600.0
"""How often the whole ledger is listed while the bus is there: for jobs that began and ended unnoticed."""
ALONE_SECONDS = 10.0
"""If the bus has been away for so long, the ledger alone tells of jobs. At a start it takes a moment to connect."""
FIRST_ANSWER_SECONDS = 10.0
"""If the store has not answered by then after a start, it is away."""
READERS = 8  # jobs that are read from the ledger at the same time

BusAway = Callable[[], float | None]
"""For how many seconds the bus has not answered; None: it answers."""


class Projection:
    """Applies events and what the ledger says to the database.

    `discover_seconds`: how often the ledger is listed for jobs that no event announced, while the bus is away.
    """

    def __init__(
        self,
        database: ProjectionDatabase,
        ledger: Ledger,
        *,
        discover_seconds: float,
        bus_away: BusAway = lambda: None,
    ) -> None:
        self._database = database
        self._ledger = ledger
        self._reader = LedgerReader(ledger)
        self._discover_seconds = discover_seconds
        self._bus_away = bus_away
        self._started = time.monotonic()
        self._silent_since: float | None = None
        """When the ledger was first found silent, by the monotonic clock."""
        self._ever_answered = False
        self._refused = False
        self._damaged: set[str] = set()
        """Jobs whose row in the database cannot be read."""
        self._rhythm = Rhythm(UNFINISHED_SECONDS)
        self._listed_at = self._started
        """When the whole ledger was last listed, or the service started."""
        self.complete = False
        """Whether the whole ledger has been read into the database at least one time."""

    def notes(self) -> list[Note]:
        """What is away just now."""
        now = time.monotonic()
        silent = None if self._silent_since is None else now - self._silent_since
        if not self._ever_answered and now - self._started > FIRST_ANSWER_SECONDS:
            silent = now - self._started  # the service still waits for the store before it reads anything
        return list(notes(store_away=silent, store_refuses=self._refused, bus_away=self._bus_away()))

    # --- the topics -------------------------------------------------------------------------------------------

    async def take(self, event: Event, delivery: Delivery) -> None:
        """Apply an event. One without a job id comes from outside: ingest makes a job of it and publishes it again.

        Raises:
            InputError: no job can have this id. The event belongs in the dead-letter topic.
            DatabaseBroken: the event could not be written. Deliver it again.
        """
        job_id = getattr(event, "job_id", None)
        if job_id is None:
            return
        if not is_job_id(job_id):
            raise InputError("job_not_found", "No job can have this id.", "job_id")
        # the event's own time, so that a rebuild gives the same history; but nothing is shown that is yet to happen
        now = self._ledger.now()
        sent = delivery.time if delivery.time is not None else now
        self._rhythm.heard(job_id)
        facts: list[Fact] = [Occurred(event, delivery.ce_id, min(sent, now), sent_at=sent)]
        if ended := ends(event):
            facts = await self._ending(job_id, ended[0], delivery.ce_id, facts)
        state = await self._apply(job_id, facts)
        if state.manifest is None:
            await self._try_refresh(job_id)  # if the ledger is away, `discover` finds the job later

    async def _ending(self, job_id: str, stage: str, ce_id: str, told: list[Fact]) -> list[Fact]:
        """The facts of an event that ends a stage: after those that the ledger has and the database has not.

        Events of different topics come in any order. A client that sees the end of a job reads its history only once
        more, so the history must be complete by then. And a job that was shown as ended must not go on: a result is in
        the ledger before its event is on a topic, so an end of which the ledger knows nothing is not ours.
        """
        state = await self._database.job(job_id) or JobState(job_id=job_id)
        try:
            earlier = await self._reader.read(state)
            outcome = functools.reduce(project, earlier, state).stage(stage).outcome
            if outcome and outcome.committed:
                ours = outcome.event.id == ce_id
            else:
                ours = await self._reader.has_result(job_id, stage)
        except Exception as error:  # `follow` reads it again
            log.warning("the ledger cannot be read", extra={"job_id": job_id, "reason": type(error).__name__})
            return told
        if not ours:
            log.warning("an event is passed over, because the ledger has no such result", extra={"job_id": job_id})
            return earlier
        return [*earlier, *told]

    # --- the ledger -------------------------------------------------------------------------------------------

    async def refresh(self, job_id: str) -> JobState | None:
        """Apply what the ledger says of one job; None if neither the ledger nor the database knows it.

        Raises:
            TransientError: the ledger or the database is away.
            ConfigError: the ledger refuses every call.
        """
        known = await self._database.job(job_id)
        facts = await self._reader.read(known or JobState(job_id=job_id))
        if not facts:
            return known
        self._rhythm.heard(job_id)
        return await self._apply(job_id, facts)

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

    async def find(self, job_id: str, project: str) -> JobState | None:
        """A job of a project; None if there is none. One of another project is looked for as one that does not exist:
        that takes as long, and fails while the ledger is away.

        Raises:
            TransientError: the ledger or the database is away.
            ConfigError: the ledger refuses every call.
        """
        state = await self.look_up(job_id)
        if state is None or state.project == project:
            return state
        await self._reader.miss(job_id)
        return None

    def mend(self, job_id: str) -> None:
        """Read a job from the ledger again, because its row in the database cannot be read."""
        self._damaged.add(job_id)

    async def run(self) -> None:
        """Reconcile until cancelled.

        Raises:
            DatabaseBroken: the database does not work; the service must start again.
        """
        self.complete = await self._database.is_complete()
        # apart, because a first listing may take minutes
        loops = [
            asyncio.create_task(_repeat(self._discover_if_needed, lambda: self._discover_seconds)),
            asyncio.create_task(_repeat(self.look, self._until_next_look)),
            asyncio.create_task(_repeat(self._follow_some, lambda: UNFINISHED_SECONDS)),
        ]
        try:
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in done:
                loop.result()
        finally:
            await cancel_and_wait(*loops)

    async def reconcile(self) -> None:
        """Read everything from the ledger that may have changed."""
        await self.discover()
        await self.follow()

    async def look(self) -> None:
        """List the index of open work, and read the jobs that the database does not know. That is one call, however
        many jobs have ended.

        Raises:
            TransientError, ConfigError: the ledger could not be read.
        """
        listed = await self._answer_of(self._ledger.list(PENDING))
        jobs = dict.fromkeys(found[1] for entry in listed if (found := entry_of(entry.key)))
        known = {job: await self._database.job(job) for job in jobs if is_job_id(job)}
        await self._refresh_all([job for job, state in known.items() if state is None or not state.visible])

    def _until_next_look(self) -> float:
        if self._silent_since is not None:
            return UNFINISHED_SECONDS
        return LOOK_SECONDS if self._bus_away() is None else self._discover_seconds

    async def discover(self) -> None:
        """List the ledger for jobs that no event announced, and read those that the database does not know.

        Raises:
            TransientError, ConfigError: the ledger could not be read.
        """
        known = await self._database.known()
        names = [*await self._answer_of(self._ledger.folders(JOBS)), *await self._asked()]
        await self._refresh_all([name for name in names if name not in known and is_job_id(name)])
        self._listed_at = time.monotonic()
        if not self.complete:
            await self._database.mark_complete()
            self.complete = True

    async def _asked(self) -> list[str]:
        """The jobs that ingest has still to make, and others that were asked for lately."""
        listed = await self._answer_of(self._ledger.list(ASKED))
        return [entry.key.removeprefix(ASKED).removesuffix(".json") for entry in listed]

    async def _discover_if_needed(self) -> None:
        """List the whole ledger: into a new database, while the bus is away, and once in a while."""
        away = self._bus_away()
        alone = away is not None and away > ALONE_SECONDS
        if not self.complete or alone or time.monotonic() - self._listed_at > LISTED_SECONDS:
            await self.discover()

    async def _follow_some(self) -> None:
        if self._bus_away() is not None:
            return await self.follow()
        jobs, now = [*await self._database.unsettled(), *self._damaged], time.monotonic()
        due = self._rhythm.due(set(jobs), now, MOST_UNFINISHED)
        self._damaged -= set(due)
        for job in due:  # before they are read, which tells whether anything is new
            self._rhythm.looked(job, now)
        try:
            await self._refresh_all(due)
        finally:
            metrics.set_jobs(await self._database.counts())

    async def follow(self) -> None:
        """Read all unfinished jobs from the ledger.

        Raises:
            TransientError, ConfigError: the ledger could not be read.
        """
        damaged, self._damaged = self._damaged, set()
        try:
            await self._refresh_all([*await self._database.unsettled(), *damaged])
        finally:
            metrics.set_jobs(await self._database.counts())

    async def _refresh_all(self, job_ids: Sequence[str]) -> None:
        for start in range(0, len(job_ids), READERS):
            failures = await asyncio.gather(*map(self._try_refresh, job_ids[start : start + READERS]))
            # one object that gives no answer does not make an outage, and must not hide the other jobs
            if None in failures:
                self._answered()
            elif failure := failures[0]:
                self._silent(failure)
                raise failure

    async def _try_refresh(self, job_id: str) -> Exception | None:
        """Refresh a job. Returns the exception if the ledger did not answer."""
        try:
            await self.refresh(job_id)
        except DatabaseBroken:
            raise
        except (TransientError, ConfigError) as error:
            return error
        except Exception:
            log.exception("a job cannot be read from the ledger", extra={"job_id": job_id})
        return None

    async def _answer_of(self, listing: Awaitable[T]) -> T:
        """A listing, which shows whether the store answers."""
        try:
            answer = await listing
        except (StoreUnavailable, ConfigError) as error:
            self._silent(error)
            raise
        self._answered()
        return answer

    def _answered(self) -> None:
        self._silent_since, self._refused, self._ever_answered = None, False, True

    def _silent(self, error: Exception) -> None:
        if self._silent_since is None:
            self._silent_since = time.monotonic()
        self._refused = isinstance(error, ConfigError)

    async def _apply(self, job_id: str, facts: Sequence[Fact]) -> JobState:
        added = [message for fact in facts for message in _messages(job_id, fact)]
        return await self._database.update(
            job_id, lambda state: functools.reduce(project, facts, state), added, self._ledger.now()
        )


async def _repeat(look: Callable[[], Awaitable[None]], seconds: Callable[[], float]) -> None:
    while True:
        try:
            await look()
        except DatabaseBroken:
            raise
        except TransientError as error:
            log.warning("the ledger cannot be read", extra={"reason": type(error).__name__})
        except ConfigError as error:  # it names the setting or the right
            log.error("the ledger cannot be read", extra={"reason": str(error)})
        except Exception:  # a bug must not end what all jobs need
            log.exception("the ledger cannot be read")
        await asyncio.sleep(seconds())


def _messages(job_id: str, fact: Fact) -> list[Message]:
    try:
        return messages(fact)
    except Exception:  # the state counts more than a line of the history
        log.exception("a fact cannot be told", extra={"job_id": job_id})
        return []
