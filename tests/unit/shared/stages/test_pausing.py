"""A user pauses a job and resumes it: what its attempt is told, who may claim it, what it costs. In virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from shared import control
from shared.errors import TransientError
from shared.events import Event, JobFailed
from shared.retry import Backoff
from shared.stages import outbox, pending
from shared.stages.ledger import decision_key, result_key, stage_prefix
from shared.stages.stage import Attempt
from tests.sim.loop import run
from tests.unit.shared.stages.test_runner import HOUR, LEASE, World, finished, quick

JOB = "ftjob-" + "a" * 24
OBEYS = LEASE / 3 + 1


async def long(attempt: Attempt) -> Event:
    await asyncio.sleep(HOUR)
    return finished(attempt)


async def pause(world: World, job_id: str = JOB) -> None:
    assert await control.pause(world.objects, job_id)


async def resume(world: World, job_id: str = JOB) -> None:
    assert await control.resume(world.objects, job_id)


def test_a_pause_stops_the_work_and_gives_the_claim_back_without_counting_anything() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)
        abandoned: list[bool] = []

        async def kept(attempt: Attempt) -> Event:
            try:
                return await long(attempt)
            except asyncio.CancelledError:
                await asyncio.sleep(2 * LEASE)  # it writes a checkpoint
                abandoned.append(attempt.abandoned)
                raise

        async with world.running(kept):
            await asyncio.sleep(30)
            await pause(world)
            await asyncio.sleep(OBEYS + LEASE)
            claim = world.claim(JOB)
            assert claim.expires > world.time() and not claim.given_back, "the claim is kept while the work ends"
            await asyncio.sleep(LEASE + 1)
            assert abandoned == [False]
            claim = world.claim(JOB)
            assert (claim.given_back, claim.paused, claim.not_before) == (True, True, 0.0)
            assert (claim.attempt, claim.bugs, claim.failures, claim.deaths) == (1, 0, 0, 0)
            await asyncio.sleep(HOUR)
        assert (world.began, world.result(JOB), world.claim(JOB).attempt) == ([JOB], None, 1)

    run(main())


def test_a_paused_job_rests_in_every_process_and_after_every_restart() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)
        await pending.add(world.objects, "validate", JOB, world.time())
        await pause(world)
        for _ in range(3):
            async with world.running(quick), world.running(quick, "two") as other:
                other.ring(JOB)
                await asyncio.sleep(HOUR)
                assert other.pending == 0, "nobody is told that it waits"
        assert world.began == []
        assert stage_prefix(JOB, "validate") + "claim.json" not in world.objects.held
        assert list(await pending.read(world.objects, "validate")) == [JOB]

    run(main())


@pytest.mark.parametrize("told", ["bell", "entry", "nothing"])
def test_a_resumed_job_goes_on(told: str) -> None:
    """Whoever resumes it rings and enters it; if all of that is lost, the job is looked at anyway."""

    async def main() -> None:
        world = World(poll_seconds=2.0, discover_seconds=30.0)
        await world.add(JOB)
        await pause(world)
        world.bus.available = told != "entry"
        async with world.running(quick) as runner:
            runner.ring(JOB)
            await asyncio.sleep(100)
            await resume(world)
            if told == "bell":
                runner.ring(JOB)
            if told == "entry":
                await pending.add(world.objects, "validate", JOB, world.time())
            await world.ended(JOB, within={"bell": 0.0, "entry": 2.0, "nothing": 30.0}[told] + 2)
        assert world.claim(JOB).attempt == 1

    run(main())


def test_a_job_that_was_paused_at_work_goes_on_with_the_next_attempt() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)
        begun: list[int] = []

        async def twice(attempt: Attempt) -> Event:
            begun.append(attempt.number)
            return await (long if attempt.number == 1 else quick)(attempt)

        async with world.running(twice) as runner:
            await asyncio.sleep(30)
            await pause(world)
            runner.ring(JOB)
            await asyncio.sleep(1)
            assert world.claim(JOB).paused, "it obeys at once"
            await resume(world)
            runner.ring(JOB)
            await world.ended(JOB, within=2)
        claim = world.claim(JOB)
        assert (begun, claim.paused, claim.deaths, claim.bugs, claim.failures) == ([1, 2], False, 0, 0, 0)

    run(main())


def test_a_resume_while_the_work_ends_is_not_lost() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)

        async def kept(attempt: Attempt) -> Event:
            if attempt.number == 2:
                return await quick(attempt)
            try:
                return await long(attempt)
            except asyncio.CancelledError:
                await asyncio.sleep(20)
                raise

        async with world.running(kept) as runner:
            await asyncio.sleep(30)
            await pause(world)
            runner.ring(JOB)
            await asyncio.sleep(1)
            await resume(world)
            await world.ended(JOB, within=22)

    run(main())


@pytest.mark.parametrize("at_work", [True, False])
def test_a_paused_job_can_be_cancelled_and_ends_at_once(at_work: bool) -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)

        async def stubborn(attempt: Attempt) -> Event:
            try:
                return await long(attempt)
            except asyncio.CancelledError:
                await asyncio.sleep(HOUR)  # a checkpoint that takes for ever
                raise

        async with world.running(stubborn) as runner:
            if at_work:
                await asyncio.sleep(30)
            await pause(world)
            runner.ring(JOB)
            await asyncio.sleep(20)
            await control.cancel(world.objects, JOB)
            runner.ring(JOB)
            await world.ended(JOB, within=2)
        result = world.result(JOB)
        assert result is not None and result.outcome == "cancelled"

    run(main())


def test_a_pause_after_the_point_of_no_return_waits_for_the_next_stage() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)
        numbers: list[int] = []

        async def undoable(attempt: Attempt) -> Event:
            numbers.append(attempt.number)
            await attempt.point_of_no_return()
            if attempt.number == 1:
                await pause(world)
                raise TransientError("the first attempt ends in between")
            await asyncio.sleep(HOUR)
            return finished(attempt)

        async with world.running(undoable):
            await world.ended(JOB, within=2 * HOUR)
        result = world.result(JOB)
        assert (numbers, result and result.outcome) == ([1, 2], "completed")

    run(main())


def test_a_job_that_is_paused_before_the_point_of_no_return_does_not_pass_it() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)

        async def undoable(attempt: Attempt) -> Event:
            await pause(world)
            await attempt.point_of_no_return()
            raise AssertionError("it was passed")

        async with world.running(undoable):
            await asyncio.sleep(HOUR)
        assert decision_key(JOB, "validate") not in world.objects.held
        assert (world.claim(JOB).paused, world.claim(JOB).bugs, world.began) == (True, 0, [JOB])

    run(main())


def test_work_that_is_paused_and_whose_claim_is_lost_then_stops_at_once() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)
        stopped: list[tuple[float, bool]] = []

        async def stubborn(attempt: Attempt) -> Event:
            try:
                return await long(attempt)
            except asyncio.CancelledError:
                try:
                    await asyncio.sleep(HOUR)
                finally:
                    stopped.append((world.time(), attempt.abandoned))
                raise

        async with world.running(stubborn):
            await asyncio.sleep(30)
            await pause(world)
            await asyncio.sleep(OBEYS)
            stolen = world.claim(JOB).model_copy(update={"owner": "another", "attempt": 7})
            key = stage_prefix(JOB, "validate") + "claim.json"
            world.objects.add(key, stolen.model_dump_json().encode())
            lost = world.time()
            await asyncio.sleep(OBEYS)
        [(at, abandoned)] = stopped
        assert at - lost <= LEASE / 3 + 0.1 and abandoned
        assert world.claim(JOB).owner == "another"

    run(main())


def test_pausing_counts_no_death_when_the_service_stops_meanwhile() -> None:
    async def main() -> None:
        world = World()
        await world.add(JOB)

        async def kept(attempt: Attempt) -> Event:
            try:
                return await long(attempt)
            except asyncio.CancelledError:
                await asyncio.sleep(5)
                raise

        async with world.running(kept):
            await asyncio.sleep(30)
            await pause(world)
            await asyncio.sleep(OBEYS)
        assert world.claim(JOB).given_back
        await resume(world)
        async with world.running(quick, "two"):
            await world.ended(JOB)
        assert world.claim(JOB).deaths == 0

    run(main())


def test_while_all_open_jobs_are_paused_the_store_is_hardly_asked() -> None:
    async def main() -> None:
        world = World(poll_seconds=2.0, discover_seconds=30.0)
        jobs = [f"ftjob-{letter * 24}" for letter in "abcdefgh"]
        for job_id in jobs:
            await world.add(job_id)
            await pending.add(world.objects, "validate", job_id, world.time())
            await pause(world, job_id)
        async with world.running(quick):
            await asyncio.sleep(100)
            world.objects.calls.clear()
            await asyncio.sleep(HOUR)
            asked: Counter[Any] = Counter(operation for operation, _ in world.objects.calls)
            listed = sum(key == "pending/validate/" for _, key in world.objects.calls)
        assert listed <= HOUR / 30 + 2
        assert set(asked) == {"list"}
        assert asked["list"] - listed <= 2 * len(jobs) * (HOUR / 30 + 2)

    run(main())


def test_a_job_that_failed_although_it_was_paused_leaves_the_index() -> None:
    """Both came at the same moment; a later stage finds the pause, and an entry that somebody made."""

    async def main() -> None:
        world = World()
        await world.add(JOB)
        await world.objects.delete(stage_prefix(JOB, "validate") + "request.json")
        failed = JobFailed(job_id=JOB, stage="ingest", code="c", message="m")
        result = outbox.result_of(JOB, "ingest", 1, "t", "failed", failed, 0.0)
        world.objects.add(result_key(JOB, "ingest"), result.model_dump_json().encode())
        await pause(world)
        await pending.add(world.objects, "validate", JOB, world.time())
        async with world.running(quick):
            await asyncio.sleep(60)
        assert list(await pending.read(world.objects, "validate")) == []

    run(main())


def test_the_pauses_of_failures_are_not_those_of_users() -> None:
    """A job that waits for something outside, and is paused then, goes on at once when it is resumed."""

    async def main() -> None:
        world = World(max_backoff_seconds=HOUR)
        await world.add(JOB)

        async def waits(attempt: Attempt) -> Event:
            if attempt.number == 1:
                raise TransientError("for now")
            return await quick(attempt)

        async with world.running(waits):
            await asyncio.sleep(0.1)
            assert world.claim(JOB).waiting_for == "for now"
            await pause(world)
            await asyncio.sleep(HOUR)
            assert world.claim(JOB).attempt == 1
            await resume(world)
            await world.ended(JOB, within=Backoff(1.0, HOUR).pause(1) + 35)

    run(main())
