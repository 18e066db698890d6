"""Runners and leases stop when told to, even if their bell rings at the same moment."""

from __future__ import annotations

import asyncio

import pytest

from shared.events import Claim, DatasetPointer, DatasetUploaded
from shared.settings import StageSettings
from shared.stages.lease import Claims
from shared.stages.ledger import job_key
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.support.data.jobs import make_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore


async def never(attempt: Attempt) -> None:
    raise AssertionError("nobody asked")


async def test_a_runner_stops_even_if_its_bell_rings_meanwhile(caplog: pytest.LogCaptureFixture) -> None:
    runner = StageRunner(
        STAGES["validate"],
        never,  # type: ignore[arg-type]
        ledger=FakeStore(),
        bus=FakeBus(),
        owner="me",
        settings=StageSettings(),
    )
    running = asyncio.create_task(runner.run())
    for _ in range(20):
        await asyncio.sleep(0)  # it waits for its bell now
    runner.ring("ftjob-x")
    running.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(running, return_exceptions=True)


async def test_a_lease_ends_even_if_its_bell_rings_meanwhile() -> None:
    lease = await Claims(FakeStore(), grace=5).take("claim.json", "me", 60)
    assert lease is not None
    bell = asyncio.Event()

    async def check() -> None:
        return None

    async with asyncio.timeout(5):
        async with lease.held(bell=bell, check=check):
            for _ in range(20):
                await asyncio.sleep(0)
            bell.set()


async def test_a_claim_that_is_being_taken_is_given_back() -> None:
    class SlowStore(FakeStore):
        def __init__(self) -> None:
            super().__init__()
            self.written, self.replies = asyncio.Event(), asyncio.Event()

        async def after(self, operation: str, key: str) -> None:
            if (operation, key) == ("create", "jobs/ftjob-1/validate/claim.json"):
                self.written.set()
                await self.replies.wait()

    store = SlowStore()
    store.add(job_key("ftjob-1"), make_job().model_dump_json().encode())
    runner = StageRunner(
        STAGES["validate"],
        never,  # type: ignore[arg-type]
        ledger=store,
        bus=FakeBus(),
        owner="me",
        settings=StageSettings(),
    )
    running = asyncio.create_task(runner.run())
    async with asyncio.timeout(5):
        await runner.ask(DatasetUploaded(job_id="ftjob-1", dataset=DatasetPointer(bucket="datasets", key="k")))
        await store.written.wait()
        running.cancel()
        for _ in range(20):
            await asyncio.sleep(0)
        store.replies.set()
        await asyncio.gather(running, return_exceptions=True)
    claim = Claim.model_validate_json(store.held["jobs/ftjob-1/validate/claim.json"].data)
    assert claim.given_back
    assert claim.deaths == 0
