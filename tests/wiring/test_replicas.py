"""Three validators and three trainers share sixty jobs: no work is done twice, no slot is idle while work waits,
who came first is served first. Runners, broker and store are the real ones; the work takes two seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import pytest

from shared.events import Claim, Event, StageName
from shared.kafka.bus import Bus, Delivery
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.ledger import job_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from shared.store.objects import ObjectStore
from tests.support.data.job_history import JobHistory
from tests.support.embedded import Embedded
from tests.support.waiting import until

pytestmark = pytest.mark.timeout(240)

JOBS = 60
REPLICAS = 3
SECONDS = 2.0
"""Of the work at one job."""
IN_TIME = 3 * JOBS * SECONDS / REPLICAS
IDLE = 0.3
"""The largest share of the slots' time that may pass between two jobs: claims, results, and the news of a job. A busy
machine takes up to 0.6 s for them; a slot that waits for the next look at all jobs takes one to two seconds."""
RESOLUTION = 1.5
"""Seconds within which jobs count as asked for at the same time: the store tells whole seconds."""
OVERTAKEN = 3 * REPLICAS
"""How many jobs that came later may begin before one, because each process learns of it at a moment of its own."""


@dataclass
class Slots:
    """When jobs were asked for, began and ended at one stage with `count` slots in all of its processes. Times in
    seconds, of one monotonic clock."""

    count: int
    asked: dict[str, float] = field(default_factory=dict)
    began: dict[str, list[float]] = field(default_factory=dict)
    """Of every attempt."""
    ended: dict[str, float] = field(default_factory=dict)

    def begin(self, job_id: str, now: float) -> None:
        self.began.setdefault(job_id, []).append(now)

    @property
    def attempts(self) -> int:
        return sum(map(len, self.began.values()))

    def idle_while_work_waits(self) -> float:
        """The share of the slots' time that no work was done in although a job waited. From the first start on: before
        it, the processes may still be joining."""
        changes: list[tuple[float, int, int]] = []  # at, change of the waiting jobs, change of the running ones
        for job_id, asked in self.asked.items():
            changes.append((asked, 1, 0))
            changes += [(at, -1 if number == 0 else 0, 1) for number, at in enumerate(self.began.get(job_id, ()))]
            if job_id in self.ended:
                changes.append((self.ended[job_id], 0, -1))
        first = min(at for starts in self.began.values() for at in starts)
        waiting = running = 0
        idle = total = 0.0
        before = first
        for at, more_waiting, more_running in sorted(changes):
            if waiting > 0 and at > before:
                seconds = at - max(before, first)
                total += seconds * self.count
                idle += seconds * min(waiting, max(0, self.count - running))
            before = max(at, first)
            waiting, running = waiting + more_waiting, running + more_running
        return idle / total if total else 0.0

    def overtaken(self, resolution: float) -> int:
        """The most jobs that began before one that was asked for earlier than they, by more than `resolution`
        seconds."""
        first = {job_id: starts[0] for job_id, starts in self.began.items()}
        return max(
            sum(self.asked[other] > self.asked[job_id] + resolution and first[other] < first[job_id] for other in first)
            for job_id in first
        )


class Replicas:
    """The processes of two stages, each with connections of its own; and what they did, by stage."""

    def __init__(self, parts: Embedded) -> None:
        self._parts = parts
        self.now = asyncio.get_running_loop().time
        self.jobs = {history.job_id: history for history in map(JobHistory, range(JOBS))}
        self.slots: dict[StageName, Slots] = {"validate": Slots(REPLICAS), "trainer": Slots(REPLICAS)}

    def result(self, stage: StageName, job_id: str) -> Event:
        history = self.jobs[job_id]
        return history.validated if stage == "validate" else history.trained

    def next_is_asked(self, stage: StageName, job_id: str) -> None:
        if stage == "validate":
            self.slots["trainer"].asked[job_id] = self.now()

    @asynccontextmanager
    async def running(self, stage: StageName, number: int) -> AsyncIterator[None]:
        """One process of a stage."""
        slots = self.slots[stage]

        async def work(attempt: Attempt) -> Event:
            job_id = attempt.job.job_id
            slots.begin(job_id, self.now())
            await asyncio.sleep(SECONDS)
            slots.ended[job_id] = self.now()
            self.next_is_asked(stage, job_id)
            return self.result(stage, job_id)

        objects, bus = ObjectStore.connect(self._parts.settings.store), Bus(self._parts.settings.bus, stage)
        runner = StageRunner(
            STAGES[stage],
            work,
            ledger=objects,
            bus=bus,
            leases=objects.for_leases(),
            owner=f"{stage}-{number}",
            settings=StageSettings(),
        )

        async def asked(event: Event, delivery: Delivery) -> None:
            await runner.ask(event)

        bus.subscribe(STAGES[stage].asked_by, asked)
        await bus.start()
        task = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await bus.stop()

    async def drop_all(self) -> None:
        """What ingest does with as many datasets: manifest, result, event."""
        objects, bus = self._parts.objects, Bus(self._parts.settings.bus, "ingest")
        await bus.start()
        try:
            for history in self.jobs.values():
                now = objects.now()
                job = history.job.model_copy(update={"created_at": now})
                await objects.create(job_key(job.job_id), job.model_dump_json().encode())
                mine = outbox.result_of(job.job_id, "ingest", 1, "ingest", "completed", history.uploaded, now)
                self.slots["validate"].asked[job.job_id] = self.now()
                await outbox.publish(objects, bus, await outbox.commit(objects, mine), "ingest")
        finally:
            await bus.stop()

    async def all_ended(self) -> None:
        for stage, slots in self.slots.items():
            await until(lambda slots=slots: len(slots.ended) == JOBS, f"{stage} ends {JOBS} jobs", IN_TIME)
            await until(lambda stage=stage: self._all_committed(stage), f"{stage} commits {JOBS} jobs")

    async def _all_committed(self, stage: StageName) -> bool:
        return len(await self.documents(stage, "result.json")) == JOBS

    async def documents(self, stage: StageName, name: str) -> list[str]:
        """The keys of a document of the stage, of all jobs."""
        listed = await self._parts.objects.list("jobs/")
        return [entry.key for entry in listed if entry.key.endswith(f"/{stage}/{name}")]


@pytest.fixture
async def replicas(own_parts: Embedded) -> AsyncIterator[Replicas]:
    """The jobs, after both stages."""
    under_test = Replicas(own_parts)
    async with AsyncExitStack() as processes:
        stages: tuple[StageName, ...] = ("validate", "trainer")
        await asyncio.gather(
            *(
                processes.enter_async_context(under_test.running(stage, number))
                for stage in stages
                for number in range(REPLICAS)
            )
        )
        await under_test.drop_all()
        await under_test.all_ended()
        yield under_test


async def test_each_job_is_worked_on_once_in_order_and_no_slot_is_idle(
    replicas: Replicas, own_parts: Embedded, record_property: Callable[[str, object], None]
) -> None:
    for stage, slots in replicas.slots.items():
        idle, overtaken = slots.idle_while_work_waits(), slots.overtaken(RESOLUTION)
        record_property(f"{stage}: idle, overtaken", (round(idle, 3), overtaken))
        owners: Counter[str] = Counter()
        for job_id in replicas.jobs:
            found = await own_parts.objects.get(stage_prefix(job_id, stage) + "claim.json")
            assert found is not None
            claim = Claim.model_validate_json(found[0])
            result = await outbox.read(own_parts.objects, job_id, stage)
            assert result is not None and result.outcome == "completed"
            assert result.attempt == claim.attempt == 1, (stage, job_id)
            owners[result.owner.split("/")[0]] += 1
        assert slots.attempts == JOBS, f"{stage}: no work is done twice"
        assert idle < IDLE, f"{stage}: slots are idle for {idle:.1%} of the time while work waits"
        assert overtaken <= OVERTAKEN, f"{stage}: {overtaken} later jobs began before one"
        assert min(owners.values()) > JOBS / REPLICAS / 2, f"{stage}: each process does its part: {owners}"
