"""The world of the stage protocol: an object store, a bus, processes of every stage, and users, who all fail at random.
The same seed always gives the same history."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from shared import control
from shared.events import (
    BY_TOPIC,
    DatasetPointer,
    DatasetUploaded,
    Event,
    StageName,
    StageResult,
)
from shared.stages import outbox
from shared.stages.ledger import JOBS, PENDING, control_prefix, job_key, pending_key, published_key, stage_prefix
from shared.stages.stage import STAGES, Attempt
from tests.sim import faults as faults_
from tests.sim import jobs
from tests.sim.faults import Faults
from tests.sim.invariants import Watch
from tests.sim.jobs import Plan
from tests.sim.loop import here, run
from tests.sim.network import Disk, Fate, Outage, UserLedger
from tests.sim.outcomes import Outcomes
from tests.sim.processes import LEASE, SHAPES, Process, Queue, Replica, Shape

PATIENCE = 500.0
"""Seconds after the calm began in which every job must have ended."""


class Broken(AssertionError):
    """An invariant does not hold."""


class World:
    def __init__(
        self, seed: int, faults: Faults | None = None, shape: Shape | None = None, plans: Sequence[Plan] | None = None
    ) -> None:
        """What is None is drawn."""
        self.random = random.Random(seed)
        random.seed(seed)  # the jitter of back-off
        self.faults = faults or faults_.draw(self.random)
        self.shape = shape or self.random.choice(SHAPES if self.faults.orderly else SHAPES[1:])
        self.plans = plans or [
            jobs.plan(number, self.random, self.faults)
            for number in range(self.random.choice([3, 4] if self.faults.orderly else [2, 2, 3]))
        ]
        self._plan_of = {plan.job.job_id: plan for plan in self.plans}
        self.watch = Watch(self)
        self.disk = Disk(self._wrote, self._deleted)
        self.published: dict[str, list[tuple[str, Event]]] = {topic: [] for topic in BY_TOPIC}
        self.published_ids: set[str] = set()
        self.queues: dict[StageName, Queue] = {stage: Queue() for stage in STAGES}
        self.processes: list[Process] = []
        self.replicas = [
            Replica(self, f"{'+'.join(sorted(set(stages)))}-{number}/", stages)
            for number, stages in enumerate(self.shape.processes)
        ]
        self.store_outages: list[Outage] = []
        self.bus_outages: list[Outage] = []
        self._denials: list[Outage] = []
        self._fates = self._draw_fates()
        self._tasks: list[asyncio.Task[Any]] = []
        self._user = Process("user", 0.0)
        self.calls = 0
        self.began = self.calm_at = 0.0
        self.over = False
        self.finished = asyncio.Event()

    # --- trouble ----------------------------------------------------------------------------------------------

    @property
    def troubled(self) -> bool:
        return here().now < self.calm_at

    def chance(self, share: float) -> bool:
        return share > 0 and self.troubled and self.random.random() < share

    def fate(self, process: Process) -> Fate:
        """What becomes of the next call."""
        self.calls += 1
        if self.faults.kill_at_call is not None:
            dies = self.calls == self.faults.kill_at_call // 2
            return (Fate.KILLED_BEFORE, Fate.KILLED_AFTER)[self.faults.kill_at_call % 2] if dies else Fate.GOOD
        if not self._fates or not self.troubled:
            return Fate.GOOD
        roll = self.random.random()
        for share, fate in self._fates:
            if roll < share:
                return fate
        return Fate.GOOD

    def _draw_fates(self) -> list[tuple[float, Fate]]:
        """Each fate with the sum of its share and those before it."""
        faults, total, fates = self.faults, 0.0, []
        for share, fate in (
            (faults.kill / 2, Fate.KILLED_BEFORE),
            (faults.kill / 2, Fate.KILLED_AFTER),
            (faults.pause / 2, Fate.PAUSED_BEFORE),
            (faults.pause / 2, Fate.PAUSED_AFTER),
            (faults.refused, Fate.REFUSED),
            (faults.reply_lost, Fate.REPLY_LOST),
            (faults.never_ends, Fate.NEVER_ENDS),
            (faults.slow, Fate.SLOW),
        ):
            total += share
            if share:
                fates.append((total, fate))
        return fates

    def kill(self, process: Process) -> None:
        process.kill()

    def pause(self, process: Process) -> None:
        process.pause(self.random.uniform(1, 4 * LEASE))

    def denied(self, process: Process, key: str) -> bool:
        return any(denial.concerns(process) and key.endswith(denial.what) for denial in self._denials)

    def _draw_weather(self) -> None:
        faults, rng = self.faults, self.random
        self.began = here().now
        self.calm_at = self.began + faults.calm_after
        self.store_outages += [self._outage() for _ in range(faults.store_outages)]
        self.bus_outages += [self._outage() for _ in range(faults.bus_outages)]
        if faults.bus_gone:
            self.bus_outages.append(Outage(0.0, float("inf"), rng.random() < 0.5))
        for _ in range(faults.denied):
            denial = self._outage("" if rng.random() < 0.3 else rng.choice(self.replicas).name)
            self._denials.append(replace(denial, what=rng.choice(["", "claim.json"])))

    def _outage(self, whom: str = "", soon: float = 80.0) -> Outage:
        begin = here().now + self.random.uniform(0, soon)
        length = self.random.uniform(*self.random.choice([(5, 20), (20, 60), (60, 120)]))
        return Outage(begin, min(begin + length, self.calm_at), self.random.random() < 0.5, whom)

    async def _strike(self) -> None:
        """Kill, pause and stop processes."""
        faults = self.faults
        shares = [faults.killed, faults.paused, faults.stopped]
        rate = sum(shares) * len(self.replicas)
        while rate and self.troubled:
            await asyncio.sleep(self.random.expovariate(rate))
            replica = self._victim()
            kind = self.random.choices(["kill", "pause", "stop"], shares)[0]
            if kind == "kill":
                self.kill(replica.process)
            elif kind == "pause":
                self.pause(replica.process)
            else:
                replica.stop()

    async def _cut_off(self) -> None:
        """Take the store from one process after another."""
        for _ in range(self.faults.cut_off):
            await asyncio.sleep(self.random.uniform(0, 30))
            self.store_outages.append(self._outage(self._victim().name, soon=5.0))

    def _victim(self) -> Replica:
        """Rather somebody who is at work."""
        busy = [replica for replica in self.replicas if self.watch.is_working(replica.process)]
        return self.random.choice(busy if busy and self.random.random() < 0.7 else self.replicas)

    # --- a run ------------------------------------------------------------------------------------------------

    def background(self, task: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(task))

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A callback raised an exception: the simulation has a bug."""
        if context["message"].startswith("Exception in callback"):
            self.watch.violated("the simulation itself works", repr(context["exception"]))

    async def run(self) -> None:
        """Run until every job has ended, or the patience is over."""
        here().set_exception_handler(self._failed)
        self._draw_weather()
        for replica in self.replicas:
            self.background(replica.run())
        for plan in self.plans:
            self.background(self._user_of(plan))
        self.background(self._strike())
        self.background(self._cut_off())
        self.background(self._sweep())
        try:
            async with asyncio.timeout_at(self.calm_at + PATIENCE):
                await self.finished.wait()
                # zombies, which may not do harm; one of them may enter a job again that has ended
                while not self.watch.broken and (self._entries() or any(work.active for work in self.watch.works)):
                    await asyncio.sleep(1.0)
        except TimeoutError:
            self.watch.violated("every job ends", self._unfinished())
        self.over = True
        for process in self.processes:
            if process.stopped:
                here().resume(process)
        for background in self._tasks:
            if background.done():
                background.result()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=100)
        if not self.watch.broken:
            Outcomes(self).check()
        if self.watch.broken:
            raise Broken(self.watch.broken[0])

    def _unfinished(self) -> str:
        return ", ".join(plan.job.job_id for plan in self.plans if not self.ended(plan.job.job_id)) or "work goes on"

    async def work(self, process: Process, owner: str, attempt: Attempt) -> Event:
        try:
            record = self.watch.begins(process, owner, attempt)
        except Exception as error:
            self.watch.violated("the simulation itself works", repr(error))
            raise
        try:
            event = await jobs.work(self, process, attempt, self._plan_of[attempt.job.job_id])
        except BaseException as error:
            self.watch.ends(record, error)
            raise
        self.watch.ends(record, None)
        return event

    async def _user_of(self, plan: Plan) -> None:
        """Drop a dataset, and perhaps pause and resume the job, or cancel it."""
        job = plan.job
        await asyncio.sleep(plan.arrives)
        self.disk.write(self._user, job_key(job.job_id), job.model_dump_json().encode())
        event = DatasetUploaded(job_id=job.job_id, dataset=DatasetPointer(bucket="datasets", key="k"))
        result = outbox.result_of(job.job_id, "ingest", 1, "user", "completed", event, here().now)
        self.disk.write(self._user, outbox.result_key(job.job_id, "ingest"), result.model_dump_json().encode())
        self.disk.write(self._user, pending_key("validate", here().now, job.job_id), b"{}")
        if not any(outage.concerns(self._user) for outage in self.bus_outages):
            self.deliver(event, result.event.id)
        for begin, length in plan.pauses:
            self.background(self._pause(job.job_id, begin))
            for _ in range(2 if length is not None else 0):  # by two clients at once
                self.background(self._resume(job.job_id, begin + (length or 0.0)))
        if plan.cancelled_after is None:
            return
        await asyncio.sleep(plan.cancelled_after)
        self.disk.write(self._user, f"{control_prefix(job.job_id)}cancel-1.json", b"{}")
        self.watch.cancelled(job.job_id)
        self._ring(job.job_id)

    async def _pause(self, job_id: str, after: float) -> None:
        await asyncio.sleep(after)
        asked_at, ledger = here().now, UserLedger(self, self._user)
        if not self.decided(job_id) and (number := await control.pause(ledger, job_id)):  # type: ignore[arg-type]
            self.watch.paused(job_id, number, asked_at)
            if self.random.random() < 0.5:  # else the api has died in between
                self._wake(job_id)

    async def _resume(self, job_id: str, after: float) -> None:
        """The user is patient: a pause that is on its way is waited for."""
        await asyncio.sleep(after + 1.0)
        if await control.resume(UserLedger(self, self._user), job_id):  # type: ignore[arg-type]
            self.watch.resumed(job_id)
            self._wake(job_id)

    def _wake(self, job_id: str) -> None:
        """Enter a job at the stage whose turn it is, and ring. Both may get lost."""
        stage = next((stage for stage in STAGES if self.result(job_id, stage) is None), None)
        if stage and not self.decided(job_id) and not self.chance(self.faults.event_lost):
            self.disk.write(self._user, pending_key(stage, here().now, job_id), b"{}")
        self._ring(job_id)

    def _ring(self, job_id: str) -> None:
        for process in self.processes:
            for runner in process.runners:
                if process.running and not self.chance(self.faults.event_lost):
                    process.context.run(runner.ring, job_id)

    async def _sweep(self) -> None:
        """The janitor deletes what attempts at finished jobs left behind."""
        while self.faults.janitor:
            await asyncio.sleep(5.0)
            for plan in self.plans:
                if self.ended(plan.job.job_id):
                    for key in self.disk.keys(JOBS + plan.job.job_id):
                        if "/attempt-" in key:
                            self.disk.delete(key)

    def _wrote(self, process: Process, key: str, data: bytes) -> None:
        self.watch.wrote(process, key, data)
        self._look_for_the_end(key)

    def _deleted(self, key: str) -> None:
        self.watch.deleted(key)
        self._look_for_the_end(key)

    def _look_for_the_end(self, key: str) -> None:
        matters = key.startswith(PENDING) or key.endswith(("/result.json", "/published.json"))
        if matters and not self._entries() and all(self.ended(plan.job.job_id) for plan in self.plans):
            self.finished.set()

    def _entries(self) -> bool:
        """Whether work is still in the index that has to leave it: without a bus, no event is ever published."""
        return not self.faults.bus_gone and bool(self.disk.keys(PENDING))

    def deliver(self, event: Event, ce_id: str) -> None:
        self.published[event.topic].append((ce_id, event))
        self.published_ids.add(ce_id)
        for stage, definition in STAGES.items():
            if isinstance(event, definition.asked_by) and not self.chance(self.faults.event_lost):
                self.queues[stage].add(event)

    # --- what must hold at the end ----------------------------------------------------------------------------

    def result(self, job_id: str, stage: str) -> StageResult | None:
        found = self.disk.data(stage_prefix(job_id, stage) + "result.json")
        return StageResult.model_validate_json(found) if found else None

    def decided(self, job_id: str) -> bool:
        """Whether the job has its last result."""
        results = [self.result(job_id, stage) for stage in STAGES]
        return results[-1] is not None or any(result and result.outcome != "completed" for result in results)

    def closed(self, job_id: str) -> bool:
        """Whether the job has its last result, and the event of every result was published."""
        results = [result for stage in STAGES if (result := self.result(job_id, stage))]
        published = all(published_key(job_id, result.stage) in self.disk.documents for result in results)
        return self.decided(job_id) and published

    def ended(self, job_id: str) -> bool:
        """Whether the job has its last result, and, if there is a bus, its events were published."""
        for stage in STAGES:
            result = self.result(job_id, stage)
            published = stage_prefix(job_id, stage) + "published.json" in self.disk.documents
            if result is None or not (published or self.faults.bus_gone):
                return False
            if result.outcome != "completed":
                return True
        return True


def simulate(
    seed: int, faults: Faults | None = None, shape: Shape | None = None, plans: Sequence[Plan] | None = None
) -> World:
    """Run one history.

    Raises:
        Broken: an invariant does not hold; the message begins with its name.
    """

    async def main() -> World:
        world = World(seed, faults, shape, plans)
        await world.run()
        return world

    return run(main())
