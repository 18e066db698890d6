"""The stage runner: finds the requests of one stage, and gives its slots to those that were asked for first.

Any number of processes may work on one stage, and any of them may die, pause or lose the store at any moment. Every job
still gets exactly one result of the stage, which is published at least once. See docs/architecture.md, "The stage
protocol".
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from shared import control
from shared.errors import InputError, LeaseLost, TransientError
from shared.events import Event, Job, StageResult
from shared.settings import StageSettings
from shared.stages import failures, outbox, pending
from shared.stages.adoption import adopt
from shared.stages.attempts import AskedJob, Attempts, Span, no_span
from shared.stages.lease import Claims
from shared.stages.ledger import Entry, Ledger, job_key, stage_prefix
from shared.stages.outbox import Outbox
from shared.stages.pending import Index
from shared.stages.publisher import Publisher
from shared.stages.requests import Missing, Requests, read_job
from shared.stages.stage import Stage, Work
from shared.tasks import cancel_and_wait, wait_for_event

log = logging.getLogger(__name__)

LOOKS = 16
"""Looks at jobs at the same time."""
FAIR_SECONDS = 1.0
"""How long a free slot waits for looks under way, so that the job that was asked for first gets it."""

_runners = itertools.count(1)


class StageRunner:
    """Finds, claims and works on the requests of one stage."""

    def __init__(
        self,
        stage: Stage,
        work: Work,
        *,
        ledger: Ledger,
        bus: Publisher,
        owner: str,
        settings: StageSettings,
        leases: Ledger | None = None,
        span: Span = no_span,
    ) -> None:
        """`leases`: the ledger through connections of its own, so that no other call delays a renewal."""
        self._owner = owner = f"{owner}/{next(_runners)}"  # two runners of one process are two owners
        self._stage = stage
        self._ledger = ledger
        self._requests = Requests(ledger, stage)
        self._settings = settings
        self._bus = bus
        self._outbox = Outbox(ledger, bus, owner, sent=self._sent)
        self._attempts = Attempts(
            stage,
            work,
            ledger=ledger,
            claims=Claims(leases or ledger, grace=settings.lease_seconds / 3),
            outbox=self._outbox,
            owner=owner,
            settings=settings,
            span=span,
        )
        self._bell = asyncio.Event()
        self._looks = asyncio.Semaphore(LOOKS)
        self._index = Index(ledger, stage)
        self._due: dict[str, float] = {}
        """The time of the next look at each undecided job (monotonic)."""
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._ready: dict[str, AskedJob] = {}
        """The jobs that wait for a slot."""
        self._fill_at = _NEVER
        """When free slots are filled, even if looks are under way (monotonic)."""
        self._running: dict[str, _Running] = {}
        """The jobs that have a slot."""
        self._asked: dict[str, float] = {}
        """When each job without a result was asked for, by the ledger's clock."""
        self._paused: set[str] = set()
        """The jobs that their users had paused at the last look."""
        self._discover_at = _NOW
        """When the index is listed (monotonic)."""
        self._discovering: asyncio.Task[None] | None = None

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
        await self._index.enter(job_id)
        self.ring(job_id)

    def ring(self, job_id: str) -> None:
        """Look at this job now, because it was asked for, or because its user wants something, such as to cancel it."""
        self._due[job_id] = self._discover_at = _NOW
        if running := self._running.get(job_id):
            running.bell.set()
        self._bell.set()

    # --- what is going on -------------------------------------------------------------------------------------

    @property
    def working(self) -> int:
        """Attempts under way."""
        return len(self._running)

    @property
    def pending(self) -> int:
        """Jobs that were asked for and have no result yet, in any process, as of the last look at each."""
        return len(self._asked)

    @property
    def oldest_pending(self) -> float:
        """Seconds since the oldest pending job was asked for; 0 if none is pending."""
        return max(0.0, self._ledger.now() - min(self._asked.values())) if self._asked else 0.0

    @property
    def waiting(self) -> Mapping[str, int]:
        """How many jobs wait because of something outside, by the kind of cause: `transient` or `configuration`."""
        return Counter(self._attempts.waiting.values())

    @property
    def unpublished(self) -> int:
        """Results that are committed but not published."""
        return self._outbox.waiting

    # --- the loop ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled. Then the attempts are stopped and their claims are given back."""
        sending = asyncio.create_task(self._outbox.run())
        try:
            while True:
                self._bell.clear()
                if self._discovering is None and _monotonic() >= self._discover_at:
                    self._discovering = asyncio.create_task(self._discover())
                self._start_looks()
                self._fill_slots()
                await wait_for_event(self._bell, self._pause())
        finally:
            attempts = [running.task for running in self._running.values()]
            listing = [self._discovering] if self._discovering else []
            await cancel_and_wait(*attempts, *self._looking.values(), *listing, sending)

    async def _discover(self) -> None:
        """List the open work of the stage. Events only make it faster: they may be lost, and owners may die."""
        self._discover_at = _NEVER  # a ring from here on sets it to now
        try:
            new, gone = await self._index.refresh()
            for job_id in new:
                self._due[job_id] = _NOW
                if running := self._running.get(job_id):
                    running.bell.set()  # its user wants something
            self._due |= {job_id: _NOW for job_id in gone if job_id in self._due}  # another process has decided them
            # a paused job is no work: its resume makes a new entry and rings, as a new job does
            idle = self._paused >= {*self._index, *self._due} and self._bus.away_since is None
            pause = self._settings.discover_seconds if idle else self._settings.poll_seconds
        except Exception as error:
            failures.tell("open work cannot be listed", error, self._stage.name)
            pause = self._retry_pause(error)
        finally:
            self._discovering = None
            self._bell.set()
        if self._discover_at != _NOW:
            self._discover_at = _monotonic() + pause

    async def _sent(self, result: StageResult) -> None:
        """The event of a result is published, so nobody has to look at the job any more."""
        try:
            await self._index.close(result.job_id)
        except Exception as error:  # the next listing shows it again
            failures.tell("an entry of open work is deleted later", error, self._stage.name, result.job_id)

    def _start_looks(self) -> None:
        now = _monotonic()
        for job_id, due in self._due.items():
            if due <= now and not self._is_busy(job_id):
                self._ready.pop(job_id, None)  # here and now: a job that is looked at must not get a slot
                self._looking[job_id] = asyncio.create_task(self._look_guarded(job_id))

    def _fill_slots(self) -> None:
        """Give free slots to the jobs that were asked for first."""
        while self._ready and len(self._running) < self._settings.concurrency:
            self._fill_at = min(self._fill_at, _monotonic() + FAIR_SECONDS)
            if self._looking and _monotonic() < self._fill_at:
                return
            job_id = min(self._ready, key=lambda job_id: self._ready[job_id].order)
            self._due[job_id] = _NEVER  # a ring from here on sets it to now
            running = self._running[job_id] = _Running()
            running.task = asyncio.create_task(self._attempt_guarded(self._ready.pop(job_id), running))
        self._fill_at = _NEVER

    def _pause(self) -> float:
        """Seconds until there is something to do, if no bell rings before."""
        looks = (due for job_id, due in self._due.items() if not self._is_busy(job_id))
        return max(0.0, min(self._settings.poll_seconds, min([self._fill_at, *looks]) - _monotonic()))

    def _is_on_its_way(self, job_id: str) -> bool:
        """Whether it waits for a slot, or for the bus."""
        return job_id in self._ready or self._outbox.holds(job_id, self._stage.name)

    def _is_busy(self, job_id: str) -> bool:
        return job_id in self._looking or job_id in self._running

    # --- looks and attempts -----------------------------------------------------------------------------------

    async def _look_guarded(self, job_id: str) -> None:
        self._due[job_id] = _NEVER  # a ring from here on sets it to now
        pause: float | None = self._settings.poll_seconds
        try:
            async with self._looks:
                pause = await self._look(job_id)
        except Exception as error:
            failures.tell("the job is looked at again later", error, self._stage.name, job_id)
            pause = self._retry_pause(error)
        finally:
            del self._looking[job_id]
            self._look_again(job_id, pause)

    async def _look(self, job_id: str) -> float | None:
        """One look at a job. Returns the seconds until the next one; None: it is ready for a slot, or there is nothing
        left to do."""
        prefix = stage_prefix(job_id, self._stage.name)
        entries = {entry.key.removeprefix(prefix): entry for entry in await self._ledger.list(prefix)}
        if "published.json" in entries:
            await self._index.close(job_id)
            return None
        if "result.json" in entries:
            result = await outbox.read(self._ledger, job_id, self._stage.name)
            assert result is not None, "results are never deleted"
            if not self._outbox.holds(job_id, self._stage.name):
                await pending.add_next(self._ledger, result)  # whoever committed it may have died before that
                self._outbox.result(result)
            return None
        wanted = await control.read(self._ledger, job_id)
        # past the point of no return, the next stage waits instead
        rests = wanted.paused and "decision.json" not in entries
        (self._paused.add if rests else self._paused.discard)(job_id)
        if rests and "request.json" in entries:  # two listings are enough
            return self._rest(job_id)
        asked = await self._find(job_id, entries.get("request.json"), rests)
        if not isinstance(asked, AskedJob):
            return asked
        if rests:
            return self._rest(job_id)
        self._asked[job_id] = asked.order[0]
        if not await self._attempts.cancel_if_asked(job_id, wanted):
            self._ready[job_id] = asked
        return None

    def _rest(self, job_id: str) -> float:
        """What `_look` returns for a paused job. Nobody asks for it until it is resumed."""
        self._asked.pop(job_id, None)
        return self._settings.discover_seconds

    async def _find(self, job_id: str, request_entry: Entry | None, rests: bool) -> AskedJob | float | None:
        """The job and its request, or else what `_look` returns. A job that rests adopts nothing."""
        found = await self._ledger.get(job_key(job_id))
        if found is None:
            return await self._not_asked(job_id, Missing.NEVER)
        job, me = read_job(found[0]), (self._stage.name, self._owner)
        if not rests and isinstance(job, Job) and (adopted := await adopt(self._ledger, job, *me)):
            self._outbox.result(adopted)
            return None
        request = await self._requests.find(job_id, created=request_entry is not None)
        if isinstance(request, Missing):
            return await self._not_asked(job_id, request)
        if isinstance(job, ValidationError):
            await self._attempts.refuse(failures.unreadable_job(job_id, self._stage.name, job))
            return None
        asked_at = self._index.asked_at(job_id)
        if asked_at is None:  # it is not listed yet
            asked_at = request_entry.modified if request_entry else self._ledger.now()
        return AskedJob(job, request, (asked_at, job.created_at))

    async def _not_asked(self, job_id: str, request: Missing) -> float | None:
        """What `_look` returns for a job that somebody has rung for, or entered, but that has no request."""
        if request is Missing.NEVER:
            await self._index.close(job_id)
        return self._settings.discover_seconds if job_id in self._index else None

    async def _attempt_guarded(self, asked: AskedJob, running: _Running) -> None:
        job_id = asked.job.job_id
        pause: float | None = self._settings.poll_seconds
        try:
            pause = await self._attempts.make(asked, running.bell)
        except Exception as error:
            failures.tell("the job is looked at again later", error, self._stage.name, job_id)
            pause = self._retry_pause(error)
        finally:
            del self._running[job_id]
            self._look_again(job_id, pause)

    def _look_again(self, job_id: str, pause: float | None) -> None:
        """Note the next look at a job, unless a ring has asked for one now."""
        if pause is None and job_id in self._index and not self._is_on_its_way(job_id):
            pause = self._settings.discover_seconds
        if pause is None and job_id not in self._ready:
            self._due.pop(job_id, None)
            self._asked.pop(job_id, None)
            self._paused.discard(job_id)
        elif self._due.get(job_id) != _NOW:
            self._due[job_id] = _NEVER if pause is None else _monotonic() + pause
        self._bell.set()

    def _retry_pause(self, error: Exception) -> float:
        """Seconds until something that failed is tried again: soon, if an outage may be over."""
        settings = self._settings
        return settings.poll_seconds if isinstance(error, (TransientError, LeaseLost)) else settings.discover_seconds


@dataclass
class _Running:
    """A job that has a slot: its task, and the event that makes it check whether the job was cancelled."""

    bell: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] = field(init=False)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


_NOW = float("-inf")
_NEVER = float("inf")
