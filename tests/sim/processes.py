"""The processes of a simulation. Each has the runners of one stage or more, and consumes events; it dies, pauses and is
stopped."""

from __future__ import annotations

import asyncio
import itertools
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from shared.errors import ConfigError, TransientError
from shared.events import Event, StageName
from shared.settings import StageSettings
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.sim.loop import Stoppable, here
from tests.sim.network import LEASES, NETWORK, SimulatedBus, SimulatedLedger

if TYPE_CHECKING:
    from tests.sim.world import World

LEASE = 15.0
MAX_BUGS = 3
MAX_DEATHS = 5
MAX_BACKOFF = 20.0
POLL = 2.0
DISCOVER = 10.0


@dataclass
class Queue:
    """The events that ask for one stage, and that no consumer has handled."""

    events: list[Event] = field(default_factory=list)
    grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.grown.set()


class Process(Stoppable):
    """One life of one process."""

    def __init__(self, name: str, skew: float) -> None:
        super().__init__()
        self.name = name
        self.skew = skew
        self.dead = False
        self.stopping = False
        self.gone = asyncio.Event()
        self.trouble_at = 0.0
        """Until when something kept it from keeping its promises in time: a pause, or a call that failed or came late.
        It is to come while such a call is under way."""
        self.paused_at = 0.0
        """When it last went on after a pause."""
        self.runners: list[StageRunner] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.handling: list[tuple[Queue, Event]] = []

    @property
    def running(self) -> bool:
        return not self.stopped and not self.dead

    def kill(self) -> None:
        if not self.dead:
            self.dead = self.stopped = True
            for queue, event in self.handling:
                queue.add(event)
            self.gone.set()

    def pause(self, seconds: float) -> None:
        if self.running:
            self.stopped = True
            here().call_later(seconds, self._resume, context=Context())

    def _resume(self) -> None:
        if not self.dead:
            self.trouble_at = self.paused_at = here().now
            here().resume(self)


@dataclass(frozen=True)
class Shape:
    """How the runners of all stages are spread over processes."""

    processes: tuple[tuple[StageName, ...], ...]
    """The stages of each process; a stage that is named twice has two runners there."""
    concurrency: int = 1

    def slots(self, stage: StageName) -> int:
        return self.runners(stage) * self.concurrency

    def runners(self, stage: StageName) -> int:
        return sum(process.count(stage) for process in self.processes)


_ALL: tuple[StageName, ...] = tuple(STAGES)
SHAPES = (
    Shape(tuple((stage,) for stage in _ALL)),
    Shape((_ALL,)),
    Shape(tuple((stage,) for stage in _ALL), concurrency=2),
    Shape(tuple((stage,) for stage in _ALL * 2)),
    Shape(tuple((stage,) for stage in _ALL * 2)),
    Shape(tuple((stage, stage) for stage in _ALL)),
    Shape((_ALL, _ALL)),
)


class Replica:
    """A place where a process runs: a supervisor starts it again whenever it has ended."""

    def __init__(self, world: World, name: str, stages: tuple[StageName, ...]) -> None:
        self._world = world
        self._stages = stages
        self.name = name
        self.process = Process(name, 0.0)

    async def run(self) -> None:
        for life in itertools.count(1):
            skew = self._world.random.uniform(-1, 1) * self._world.faults.skew
            process = self.process = Process(f"{self.name}{life}", skew)
            self._world.processes.append(process)
            for number, stage in enumerate(self._stages):
                runner = self._runner(process, stage, f"{process.name}/{number}")
                process.runners.append(runner)
                self._start(process, runner.run())
                self._start(process, self._consume(process, self._world.queues[stage], runner))
            await process.gone.wait()
            await asyncio.sleep(self._world.random.uniform(0.5, 10.0))

    def stop(self) -> None:
        """SIGTERM."""
        process = self.process
        if process.stopping or not process.running:
            return
        process.stopping = True
        self._world.watch.stops(process)
        for task in process.tasks:
            task.cancel()

        async def wait() -> None:
            await asyncio.wait(process.tasks)
            self._world.watch.stopped(process)
            process.kill()

        self._world.background(wait())

    def _start(self, process: Process, life: Any) -> None:
        task = here().create_task(life, context=process.context)
        task.add_done_callback(partial(self._world.watch.ended, process), context=NETWORK)
        process.tasks.append(task)

    def _runner(self, process: Process, stage: StageName, owner: str) -> StageRunner:
        async def work(attempt: Attempt) -> Event:
            return await self._world.work(process, owner, attempt)

        settings = StageSettings(
            lease_seconds=LEASE,
            poll_seconds=POLL,
            discover_seconds=DISCOVER,
            concurrency=self._world.shape.concurrency,
            max_bugs=MAX_BUGS,
            max_deaths=MAX_DEATHS,
            max_backoff_seconds=MAX_BACKOFF,
        )
        return StageRunner(
            STAGES[stage],
            work,
            ledger=SimulatedLedger(self._world, process),
            leases=SimulatedLedger(self._world, process, LEASES, owner),
            bus=SimulatedBus(self._world, process),
            owner=owner,
            settings=settings,
        )

    async def _consume(self, process: Process, queue: Queue, runner: StageRunner) -> None:
        """Consume events as a member of a consumer group, which commits an event only after handling it."""
        random = self._world.random
        while True:
            if not queue.events:
                queue.grown.clear()
                await queue.grown.wait()
            await asyncio.sleep(random.uniform(0.001, 0.05))
            if not queue.events:
                continue
            event = queue.events.pop(random.randrange(len(queue.events)))
            process.handling.append((queue, event))
            try:
                await runner.ask(event)
            except (TransientError, ConfigError):
                queue.add(event)
                await asyncio.sleep(1.0)
            process.handling.remove((queue, event))
            if self._world.chance(self._world.faults.event_twice):
                queue.add(event)
