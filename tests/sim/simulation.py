"""Simulates the stage protocol with an object store, a bus and processes that all fail at random.

Every call that leaves a process takes a random time; before and after its effect the process may be killed, may freeze
for longer than its lease, or may get an error although the effect took place. Events are duplicated, reordered and
lost. The same seed always gives the same run.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from shared import ids
from shared.errors import InputError, StoreUnavailable, TransientError
from shared.events import (
    BY_TOPIC,
    DatasetPointer,
    DatasetUploaded,
    DatasetValidated,
    EvalCompleted,
    Event,
    Interval,
    Job,
    JobFailed,
    JobProgress,
    ModelDeployed,
    Split,
    StageName,
    StageResult,
)
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.ledger import job_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.support.data.jobs import NOWHERE, make_job, make_training
from tests.support.fakes.bus import FakeBus, Published
from tests.support.fakes.store import Disk, FakeStore, StoredObject

LEASE = 15.0


@dataclass(frozen=True)
class Faults:
    """The probability of each fault, per call unless its docstring says otherwise."""

    kill: float = 0.01
    freeze: float = 0.005
    refused: float = 0.02
    reply_lost: float = 0.02
    event_lost: float = 0.1
    event_twice: float = 0.2
    work_fails: float = 0.1
    bad_data: float = 0.15
    """Per job."""
    cancelled: float = 0.15
    """Per job."""
    calm_after: float = 150.0
    """Seconds after which nothing fails any more, so that every job must end."""
    kill_at_call: int | None = None
    """Kill the process that makes the call with this number, and no other."""


@dataclass(eq=False)
class Process:
    """One replica of one stage's service."""

    name: str
    death: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


class Simulation:
    def __init__(self, seed: int, faults: Faults, *, create_once: bool = True) -> None:
        self.random = random.Random(seed)
        self.faults = faults
        self.create_once = create_once
        self.disk = Disk()
        self.writers: dict[str, set[str]] = {}
        self.results_written: Counter[str] = Counter()
        self.attempts_started: Counter[tuple[str, str, int]] = Counter()
        self.published: dict[str, list[tuple[str, Event]]] = {topic: [] for topic in BY_TOPIC}
        self.queues: dict[StageName, list[tuple[str, Event]]] = {stage: [] for stage in STAGES}
        self.arrivals: dict[StageName, asyncio.Event] = {stage: asyncio.Event() for stage in STAGES}
        self.processes: list[Process] = []
        self.calls = 0
        self.began = 0.0
        self.over = False

    # --- trouble ----------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def troubled(self) -> bool:
        return self.now - self.began < self.faults.calm_after

    def chance(self, share: float) -> bool:
        return self.troubled and self.random.random() < share

    async def network_call(self, process: Process) -> None:
        """Simulate a message on the network: time passes, and its process may be killed or freeze before it arrives."""
        if self.over:
            raise asyncio.CancelledError
        self.calls += 1
        mortal = process.name != "user"
        if mortal and (self.calls == self.faults.kill_at_call or self.chance(self.faults.kill)):
            process.death.set()
        if self.chance(self.faults.freeze):
            await asyncio.sleep(self.random.uniform(LEASE, 4 * LEASE))
        await asyncio.sleep(self.random.uniform(0.001, 0.05))
        if process.death.is_set():
            await asyncio.Event().wait()  # a dead process has no further effects

    # --- processes --------------------------------------------------------------------------------------------

    async def replica(self, stage: StageName, number: int) -> None:
        """Supervise one replica: start the service again whenever it was killed."""
        for life in range(10_000):
            process = Process(f"{stage}-{number}-{life}")
            # Dead processes are kept, because the garbage collector would run their `finally` blocks.
            self.processes.append(process)
            runner = self.runner(stage, process)
            process.tasks = [
                asyncio.create_task(runner.run()),
                asyncio.create_task(self.consume(stage, process, runner)),
            ]
            await process.death.wait()
            await asyncio.sleep(self.random.uniform(0.5, 10.0))

    def runner(self, stage: StageName, process: Process) -> StageRunner:
        async def work(attempt: Attempt) -> Event:
            return await self.work(process, attempt)

        return StageRunner(
            STAGES[stage],
            work,
            ledger=SimulatedStore(self, process),
            bus=SimulatedBus(self, process),
            owner=process.name,
            settings=StageSettings(lease_seconds=LEASE, poll_seconds=5.0, max_bugs=1000, max_deaths=1000),
        )

    async def consume(self, stage: StageName, process: Process, runner: StageRunner) -> None:
        """Consume events as a member of a consumer group, which commits an event only after handling it."""
        queue = self.queues[stage]
        while True:
            if not queue:
                self.arrivals[stage].clear()
                await self.arrivals[stage].wait()
            await self.network_call(process)
            if not queue:
                continue
            index = self.random.randrange(len(queue))
            taken = queue[index]
            try:
                await runner.ask(taken[1])
            except TransientError:
                continue
            if taken in queue and not self.chance(self.faults.event_twice):
                queue.remove(taken)

    async def work(self, process: Process, attempt: Attempt) -> Event:
        self.attempts_started[(attempt.job.job_id, attempt.stage, attempt.number)] += 1
        ledger = SimulatedStore(self, process)
        await asyncio.sleep(self.random.uniform(0.1, 20.0))
        await ledger.create(f"{attempt.prefix}artifact", process.name.encode())
        await attempt.progress(message="half way")
        if self.chance(self.faults.work_fails):
            raise self.random.choice([TransientError("for now"), RuntimeError("a bug")])
        if attempt.stage == "validate" and attempt.job.spec.suffix == "bad":
            raise InputError("invalid_training_file", "Line 1 is bad", "training_file")
        await asyncio.sleep(self.random.uniform(0.1, 20.0))
        # every attempt finds something else, so that two results cannot be mistaken for one
        return _event(attempt, finding=self.random.random())

    # --- a run --------------------------------------------------------------------------------------

    async def run_jobs(self, jobs: int, replicas: int = 2, limit: float = 5_000.0) -> None:
        """Run until every job has ended and its last event was published, or `limit` seconds have passed."""
        self.began = self.now
        processes = [asyncio.create_task(self.replica(stage, n)) for stage in STAGES for n in range(replicas)]
        processes += [asyncio.create_task(self.user(self.job(number))) for number in range(jobs)]
        ids_ = [self.job(number).job_id for number in range(jobs)]
        while self.now - self.began < limit and not all(self.ended(job_id) for job_id in ids_):
            await asyncio.sleep(1.0)  # virtual seconds
        self.over = True
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def job(self, number: int) -> Job:
        draw = random.Random(f"{number}/{self.faults}")
        return make_job(
            job_id=f"ftjob-{ids.derive(number)}",
            spec={"suffix": "bad" if draw.random() < self.faults.bad_data else "good"},
            model=f"ft:base:org::{number}",
            traceparent="00-" + "1" * 32 + "-" + "2" * 16 + "-01",
        )

    async def user(self, job: Job) -> None:
        """Upload a dataset, and sometimes cancel the job."""
        user = SimulatedStore(self, Process("user"), reliable=True)
        await asyncio.sleep(self.random.uniform(0, 20))
        await user.create(job_key(job.job_id), job.model_dump_json().encode())
        event = DatasetUploaded(job_id=job.job_id, dataset=DatasetPointer(bucket="datasets", key="k"))
        result = outbox.result_of(job.job_id, "ingest", 1, "user", "completed", event, self.now)
        await outbox.commit(user, result)
        self.deliver(event, result.event.id)
        if self.random.random() < self.faults.cancelled:
            await asyncio.sleep(self.random.uniform(0, 120))
            await user.create(f"jobs/{job.job_id}/control/cancel-1.json", b"{}")

    def deliver(self, event: Event, ce_id: str) -> None:
        self.published[event.topic].append((ce_id, event))
        for stage, definition in STAGES.items():
            if isinstance(event, definition.asked_by) and not self.chance(self.faults.event_lost):
                self.queues[stage].append((ce_id, event))
                self.arrivals[stage].set()

    # --- what must hold ---------------------------------------------------------------------------------------

    @property
    def objects(self) -> dict[str, StoredObject]:
        return self.disk.buckets["tunestream"]

    def result(self, job_id: str, stage: str) -> StageResult | None:
        found = self.objects.get(stage_prefix(job_id, stage) + "result.json")
        return StageResult.model_validate_json(found.data) if found else None

    def ended(self, job_id: str) -> bool:
        """Whether the job has its last result, and the ledger says that its event was published."""
        for stage in STAGES:
            result = self.result(job_id, stage)
            if result is None or stage_prefix(job_id, stage) + "published.json" not in self.objects:
                return False
            if result.outcome != "completed":
                return True
        return True

    def check(self, jobs: int) -> None:
        """Assert that every job ended, that every stage was decided once, and that the events match the ledger."""
        for key, count in self.results_written.items():
            assert count == 1, f"{key} was decided {count} times"
        for attempt, count in self.attempts_started.items():
            assert count == 1, f"two owners worked on one attempt: {attempt}"
        for key, writers in self.writers.items():
            assert "/attempt-" not in key or len(writers) == 1, f"{key} was written by {writers}"
        for number in range(jobs):
            job_id = self.job(number).job_id
            assert self.ended(job_id), f"job {number} was lost"
            for stage in STAGES:
                if result := self.result(job_id, stage):
                    self.check_published(result)
            failures = {ce_id for ce_id, event in self.published["job.failed"] if event.job_id == job_id}
            assert len(failures) <= 1, f"job {number} failed more than once"

    def check_published(self, result: StageResult) -> None:
        wanted = (result.event.id, result.event.event())
        said = [
            (ce_id, event)
            for ce_id, event in self.published[result.event.topic]
            if getattr(event, "job_id", None) == result.job_id and not isinstance(event, JobProgress)
        ]
        assert wanted in said, f"{result.stage} of {result.job_id} was never published"
        if not isinstance(wanted[1], JobFailed):
            assert all(pair == wanted for pair in said), f"{result.stage} said two different things"


class SimulatedStore(FakeStore):
    """The object store as one process sees it, over a network that fails."""

    def __init__(self, simulation: Simulation, process: Process, *, reliable: bool = False) -> None:
        super().__init__(clock=asyncio.get_running_loop().time, disk=simulation.disk)
        self._simulation = simulation
        self._process = process
        self._reliable = reliable

    async def before(self, operation: str, key: str) -> None:
        await self._simulation.network_call(self._process)
        if not self._reliable and self._simulation.chance(self._simulation.faults.refused):
            raise StoreUnavailable("refused")

    async def after(self, operation: str, key: str) -> None:
        await self._simulation.network_call(self._process)
        if not self._reliable and self._simulation.chance(self._simulation.faults.reply_lost):
            raise StoreUnavailable("the reply was lost")

    async def create(self, key: str, data: bytes) -> str:
        if self._simulation.create_once:
            return await super().create(key, data)
        return (await self.put(key, data)).etag

    def write(self, key: str, data: bytes) -> StoredObject:
        self._simulation.writers.setdefault(key, set()).add(self._process.name)
        if key.endswith("/result.json"):
            self._simulation.results_written[key] += 1
        return super().write(key, data)


class SimulatedBus(FakeBus):
    """The bus as one process sees it, over a network that fails."""

    def __init__(self, simulation: Simulation, process: Process) -> None:
        super().__init__()
        self._simulation = simulation
        self._process = process

    async def before(self, event: Event) -> None:
        await self._simulation.network_call(self._process)
        if self._simulation.chance(self._simulation.faults.refused):
            raise TransientError("the broker is away")

    async def after(self, event: Event) -> None:
        await self._simulation.network_call(self._process)
        if self._simulation.chance(self._simulation.faults.reply_lost):
            raise TransientError("the acknowledgement was lost")

    def send(self, message: Published) -> None:
        self._simulation.deliver(message.event, message.ce_id)


def _event(attempt: Attempt, finding: float) -> Event:
    job = attempt.job
    match attempt.stage:
        case "validate":
            return DatasetValidated(
                job_id=job.job_id,
                method="supervised",
                format="chat",
                train=Split(reference=NOWHERE, examples=10, tokens=100),
                report=NOWHERE,
                estimated_seconds=finding,
            )
        case "trainer":
            return make_training(job_id=job.job_id, model=job.model, base=job.base, train_loss=finding)
        case "evaluator":
            return EvalCompleted(
                job_id=job.job_id, model=job.model, base=job.base, examples=1, metric="rouge_l",
                scores={"base": {"rouge_l": finding}}, passed=True, reasons=(), report=NOWHERE, html=NOWHERE,
                delta=Interval(mean=1, low=1, high=1, confidence=0.95),
            )  # fmt: skip
        case _:
            return ModelDeployed(job_id=job.job_id, model=job.model, alias=job.alias, endpoint="e", traffic=finding)
