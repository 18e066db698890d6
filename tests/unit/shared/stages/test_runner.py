"""What the runner does with jobs that fail, wait, are many, or whose bus is gone, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.events import Claim, DatasetPointer, DatasetUploaded, Event, JobFailed, JobProgress, StageResult
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.ledger import job_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.sim.loop import run
from tests.support.data.jobs import make_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import Disk, FakeStore

LEASE = 15.0
HOUR = 3600.0
Work = Callable[[Attempt], Awaitable[Event]]


class World:
    """A ledger, a bus and runners of the validate stage."""

    def __init__(self, **settings: object) -> None:
        self.time = asyncio.get_running_loop().time
        self.objects = FakeStore(clock=self.time)
        self.bus = FakeBus(clock=self.time)
        self.settings = StageSettings.model_validate({"lease_seconds": LEASE, **settings})
        self.began: list[str] = []
        """The jobs that were worked on, in order."""

    async def add(self, job_id: str) -> None:
        job = make_job(job_id=job_id, created_at=self.time())
        event = DatasetUploaded(job_id=job_id, dataset=DatasetPointer(bucket="datasets", key="k"))
        await outbox.commit(self.objects, outbox.result_of(job_id, "ingest", 1, "t", "completed", event, self.time()))
        await self.objects.create(
            stage_prefix(job_id, "validate") + "request.json", event.model_dump_json(exclude_none=True).encode()
        )
        await self.objects.create(job_key(job_id), job.model_dump_json().encode())

    def runner(self, work: Work, owner: str = "one") -> StageRunner:
        async def noted(attempt: Attempt) -> Event:
            self.began.append(attempt.job.job_id)
            return await work(attempt)

        return StageRunner(
            STAGES["validate"], noted, ledger=self.objects, bus=self.bus, owner=owner, settings=self.settings
        )

    @asynccontextmanager
    async def running(self, work: Work, owner: str = "one") -> AsyncIterator[StageRunner]:
        runner = self.runner(work, owner)
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def result(self, job_id: str) -> StageResult | None:
        found = self.objects.held.get(stage_prefix(job_id, "validate") + "result.json")
        return StageResult.model_validate_json(found.data) if found else None

    def claim(self, job_id: str) -> Claim:
        return Claim.model_validate_json(self.objects.held[stage_prefix(job_id, "validate") + "claim.json"].data)

    async def ended(self, *job_ids: str, within: float = 600.0) -> None:
        """Wait until the jobs have results."""
        async with asyncio.timeout(within):
            while not all(map(self.result, job_ids)):
                await asyncio.sleep(0.5)


def finished(attempt: Attempt) -> Event:
    return JobFailed(job_id=attempt.job.job_id, stage="validate", code="c", message="found")


async def quick(attempt: Attempt) -> Event:
    await asyncio.sleep(1)
    return finished(attempt)


def test_finished_work_outlives_an_outage_of_the_store_that_is_longer_than_its_lease() -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")

        async def work(attempt: Attempt) -> Event:
            await asyncio.sleep(30)
            world.objects.available = False  # when the result is there, the store is away
            return finished(attempt)

        async with world.running(work), world.running(quick, "two"):
            await asyncio.sleep(30 + 10 * LEASE)
            world.objects.available = True
            await world.ended("ftjob-1")
        result = world.result("ftjob-1")
        assert result is not None
        assert (world.began, result.attempt) == (["ftjob-1"], 1)

    run(main())


def test_jobs_with_a_broken_cause_wait_without_delaying_others_and_say_for_what() -> None:
    async def main() -> None:
        world = World(concurrency=1)
        broken = [f"ftjob-broken{n}" for n in range(3)]

        async def work(attempt: Attempt) -> Event:
            if attempt.job.job_id in broken:
                raise ConfigError("the key of TUNESTREAM_EVALUATOR__API_KEY is refused")
            return await quick(attempt)

        async with world.running(work) as runner:
            for job_id in broken:
                await world.add(job_id)
            await asyncio.sleep(HOUR)
            began = world.time()
            await world.add("ftjob-good")
            await world.ended("ftjob-good", within=30)
            assert world.time() - began < 20
            assert runner.waiting == {"configuration": 3}
            claim = world.claim(broken[0])
            assert claim.waiting_for == "the key of TUNESTREAM_EVALUATOR__API_KEY is refused"
            assert claim.waiting_since is not None and world.time() - claim.waiting_since > HOUR - 60
            assert (claim.given_back, claim.deaths, claim.bugs) == (True, 0, 0)
        states = {event.state for event in world.bus.events(JobProgress) if isinstance(event, JobProgress)}
        assert "waiting" in states

    run(main())


def test_an_outside_cause_never_ends_a_job() -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")
        mended = world.time() + 24 * HOUR

        async def work(attempt: Attempt) -> Event:
            if world.time() < mended:
                raise TransientError("vLLM does not answer")
            return finished(attempt)

        async with world.running(work):
            await world.ended("ftjob-1", within=25 * HOUR)
        result = world.result("ftjob-1")
        assert result is not None and result.outcome == "completed"
        assert len(world.began) > 24 * 60  # it is tried about every minute

    run(main())


def test_restarts_count_for_nothing_and_deaths_end_a_killer() -> None:
    async def main() -> None:
        world = World(max_deaths=3)
        await world.add("ftjob-1")

        async def endless(attempt: Attempt) -> Event:
            await asyncio.sleep(10 * HOUR)
            raise AssertionError

        for life in range(20):
            async with world.running(endless, f"restarted-{life}"):
                await asyncio.sleep(10)
        assert (world.claim("ftjob-1").deaths, world.result("ftjob-1")) == (0, None)

        for life in range(4):
            alive = FakeStore(clock=world.time, disk=world.objects.disk)
            runner = StageRunner(
                STAGES["validate"],
                endless,
                ledger=alive,
                bus=world.bus,
                owner=f"killed-{life}",
                settings=world.settings,
            )
            task = asyncio.create_task(runner.run())
            await asyncio.sleep(60)
            alive.disk = Disk(available=False)  # nothing of it reaches the store any more
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        result = world.result("ftjob-1")
        assert result is not None
        assert (result.outcome, result.event.data["code"]) == ("failed", "too_many_attempts")

    run(main())


def test_a_result_that_lands_between_look_and_claim_is_not_made_again() -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")
        create = world.objects.create

        async def late(key: str, data: bytes) -> str:
            etag = await create(key, data)
            if key.endswith("claim.json"):  # another owner commits just now
                event = JobFailed(job_id="ftjob-1", stage="validate", code="c", message="of another")
                theirs = outbox.result_of("ftjob-1", "validate", 1, "other", "failed", event, world.time())
                await create(stage_prefix("ftjob-1", "validate") + "result.json", theirs.model_dump_json().encode())
            return etag

        world.objects.create = late  # type: ignore[method-assign]
        async with world.running(quick):
            await asyncio.sleep(30)
        assert world.began == []
        assert world.bus.events(JobFailed)  # it is published nevertheless

    run(main())


def test_a_bus_that_never_answers_holds_up_no_job() -> None:
    async def main() -> None:
        world = World()
        jobs = [f"ftjob-{n}" for n in range(5)]

        async def never(event: Event) -> None:
            await asyncio.sleep(10)
            raise TransientError("the bus does not answer")

        world.bus.before = never  # type: ignore[method-assign]
        async with world.running(quick) as runner:
            for job_id in jobs:
                await world.add(job_id)
            await world.ended(*jobs, within=60)
            assert runner.unpublished == 5
            world.bus.before = FakeBus.before.__get__(world.bus)  # type: ignore[method-assign]
            async with asyncio.timeout(120):
                while runner.unpublished:
                    await asyncio.sleep(1)
        assert {event.job_id for event in world.bus.events(JobFailed) if isinstance(event, JobFailed)} == set(jobs)

    run(main())


def test_free_slots_go_to_the_job_that_was_asked_for_first_also_after_a_restart() -> None:
    async def main() -> None:
        world = World()
        order = [f"ftjob-{name}" for name in "qazwsxedcrfv"]  # not the order of a listing
        for job_id in order:
            await world.add(job_id)
            await asyncio.sleep(1)
        async with contextlib.AsyncExitStack() as stack:
            for owner in ("one", "two", "three"):
                await stack.enter_async_context(world.running(quick, owner))
            await world.ended(*order)
        assert sorted(world.began) == sorted(order)  # no double work
        places = [world.began.index(job_id) - at for at, job_id in enumerate(order)]
        assert max(map(abs, places)) <= 2  # three at a time

    run(main())


def test_a_job_whose_manifest_cannot_be_read_fails_and_names_the_field() -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")
        key = job_key("ftjob-1")
        bad = world.objects.held[key].data.replace(b'"weight_decay":0.0', b'"weight_decay":null')
        assert bad != world.objects.held[key].data
        world.objects.add(key, bad)
        await world.add("ftjob-2")
        async with world.running(quick):
            await world.ended("ftjob-1", "ftjob-2", within=30)
        result = world.result("ftjob-1")
        assert result is not None
        failure = result.event.data
        assert (failure["code"], failure["param"]) == ("unreadable_job", "spec.hyperparameters.weight_decay")

    run(main())


@pytest.mark.parametrize("error", [ConfigError("the key was rotated"), StoreUnavailable("away"), RuntimeError("?")])
def test_no_error_of_a_listing_ends_the_runner(error: Exception) -> None:
    async def main() -> None:
        world = World()
        failing = True

        async def folders(prefix: str) -> list[str]:
            if failing:
                raise error
            return ["ftjob-1"]

        world.objects.folders = folders  # type: ignore[method-assign]
        await world.add("ftjob-1")
        async with world.running(quick):
            await asyncio.sleep(60)
            failing = False
            await world.ended("ftjob-1", within=60)

    run(main())


def test_a_cancel_ends_the_work_within_seconds_without_any_event() -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")

        async def long(attempt: Attempt) -> Event:
            await asyncio.sleep(HOUR)
            return finished(attempt)

        async with world.running(long):
            await asyncio.sleep(30)
            await world.objects.create("jobs/ftjob-1/control/cancel-1.json", b"{}")
            await world.ended("ftjob-1", within=LEASE / 3 + 1)
        result = world.result("ftjob-1")
        assert result is not None and result.outcome == "cancelled"

    run(main())


@pytest.mark.parametrize("cancelled", ["before", "after"])
def test_a_cancel_is_obeyed_until_the_point_of_no_return(cancelled: str) -> None:
    async def main() -> None:
        world = World()
        await world.add("ftjob-1")
        passed = 0

        async def cancel() -> None:
            await world.objects.create("jobs/ftjob-1/control/cancel-1.json", b"{}")

        async def undoable(attempt: Attempt) -> Event:
            nonlocal passed
            if cancelled == "before":
                await cancel()
            await attempt.point_of_no_return()
            passed += 1
            if passed == 1:
                await cancel()
                raise TransientError("the first attempt ends in between")
            await asyncio.sleep(HOUR)
            return finished(attempt)

        async with world.running(undoable):
            await world.ended("ftjob-1", within=2 * HOUR)
        result = world.result("ftjob-1")
        assert result is not None
        assert (result.outcome, passed) == (("cancelled", 0) if cancelled == "before" else ("completed", 2))

    run(main())
