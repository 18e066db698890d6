"""Waiting for the GPU before a training, if vLLM and training take turns on it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.trainer.job.gpu_turn import hold
from shared.errors import TransientError
from shared.events import Claim, Job, JobProgress
from shared.settings import Settings
from shared.stages.gpu_turns import FIRST_RIGHT_SECONDS, GpuTurns
from shared.stages.stage import Attempt
from tests.support.data.jobs import FakeClaim
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until

LEASE = 0.3  # seconds, for stages and turns; a lease is renewed after a third of it


class Trainer:
    """One attempt at the trainer stage, with a simulated training."""

    def __init__(self, objects: FakeStore, clock: Clock, *, number: int = 1, **settings: Any) -> None:
        given = {"gpu": {"share": "alternate"}, "stage": {"poll_seconds": 0.005, "lease_seconds": LEASE}, **settings}
        self.settings = Settings.model_validate(given)
        self.objects = objects
        self.clock = clock
        self.messages: list[str] = []
        self.began = asyncio.Event()
        self.may_end = asyncio.Event()

        async def publish(event: JobProgress) -> None:
            self.messages.append(event.message)

        job = Job.model_construct(job_id="ftjob-abc")
        self.claim = FakeClaim()
        self.attempt = Attempt(job, {}, "trainer", number, "", publish, self.claim.certain)

    async def train(self) -> None:
        async with hold(self.objects, self.settings, self.attempt):
            self.began.set()
            await self.may_end.wait()


@pytest.fixture
def turns(objects: FakeStore, clock: Clock) -> GpuTurns:
    """The turns of the GPU, as the inference service uses them."""
    return GpuTurns(objects, "0", lease_seconds=LEASE)


async def test_training_begins_when_vllm_has_let_go_and_gives_the_gpu_back(
    objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    serving = await turns.for_serving()
    assert serving is not None
    trainer = Trainer(objects, clock)
    training = asyncio.create_task(trainer.train())
    while not await turns.wanted():
        await asyncio.sleep(0.005)
    assert not trainer.began.is_set()
    assert trainer.messages == ["training: waits for the GPU"]

    await turns.release(serving)
    await asyncio.wait_for(trainer.began.wait(), 10)
    assert await turns.for_serving() is None
    trainer.may_end.set()
    await training

    assert await turns.for_serving() is not None


async def test_a_training_that_is_cancelled_or_fails_gives_the_gpu_back(
    objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    trainer = Trainer(objects, clock)
    training = asyncio.create_task(trainer.train())
    await trainer.began.wait()

    training.cancel()
    with pytest.raises(asyncio.CancelledError):
        await training

    assert await turns.for_serving() is not None


async def test_a_turn_that_is_lost_ends_the_training_for_now(objects: FakeStore, clock: Clock) -> None:
    trainer = Trainer(objects, clock)
    training = asyncio.create_task(trainer.train())
    await trainer.began.wait()

    claim = Claim(owner="another", attempt=2, expires=clock.now + 60)
    await objects.put("gpu/0/turn.json", claim.model_dump_json().encode())

    with pytest.raises(TransientError, match="lease was lost"):
        await asyncio.wait_for(training, 10)


async def test_an_outage_of_the_ledger_ends_no_training(objects: FakeStore, clock: Clock) -> None:
    trainer = Trainer(objects, clock)
    training = asyncio.create_task(trainer.train())
    await trainer.began.wait()

    objects.available = False
    failed = len(objects.calls)
    await until(lambda: len(objects.calls) > failed + 3, "renewals have failed")
    clock.now += 10 * LEASE
    objects.available = True
    trainer.may_end.set()

    await asyncio.wait_for(training, 10)


async def test_a_successor_does_not_take_the_gpu_over_from_an_attempt_that_may_still_live(
    objects: FakeStore, clock: Clock
) -> None:
    first, second = Trainer(objects, clock), Trainer(objects, clock, number=2)
    zombie = asyncio.create_task(first.train())
    await first.began.wait()
    successor = asyncio.create_task(second.train())
    while not second.messages:
        await asyncio.sleep(0.005)
    assert not second.began.is_set()

    first.may_end.set()
    await zombie
    clock.now += FIRST_RIGHT_SECONDS

    await asyncio.wait_for(second.began.wait(), 10)
    second.may_end.set()
    await successor


@pytest.mark.parametrize("settings", [{"gpu": {"share": "split"}}, {"trainer": {"gpu": "cpu"}}])
async def test_a_training_does_not_wait_if_the_gpu_is_not_shared_by_turns(
    objects: FakeStore, clock: Clock, turns: GpuTurns, settings: dict[str, Any]
) -> None:
    await turns.for_serving()
    before = dict(objects.held)
    trainer = Trainer(objects, clock, **settings)
    trainer.may_end.set()

    await asyncio.wait_for(trainer.train(), 10)

    assert objects.held == before


async def test_an_attempt_in_doubt_takes_no_turn(objects: FakeStore, clock: Clock, turns: GpuTurns) -> None:
    trainer = Trainer(objects, clock)
    trainer.claim.sure.clear()
    training = asyncio.create_task(trainer.train())
    await until(lambda: trainer.claim.asked, "it asks whether it still has the job")
    assert objects.held == {}

    training.cancel()  # the job is another's
    with pytest.raises(asyncio.CancelledError):
        await training

    assert objects.held == {}


async def test_doubt_that_comes_while_it_waits_for_the_gpu_keeps_an_attempt_from_taking_it(
    objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    serving = await turns.for_serving()
    assert serving is not None
    trainer = Trainer(objects, clock)
    training = asyncio.create_task(trainer.train())
    await until(turns.wanted, "it waits for the GPU")

    trainer.claim.sure.clear()
    asked = trainer.claim.asked
    await until(lambda: trainer.claim.asked > asked, "it asks again")
    await turns.release(serving)
    assert not trainer.began.is_set()

    trainer.claim.sure.set()
    await asyncio.wait_for(trainer.began.wait(), 10)
    trainer.may_end.set()
    await training
