"""What ingest asks of the store while nothing happens, and how soon it notices what does. In virtual time."""

from __future__ import annotations

import asyncio

import pytest

from services.ingest.requests import Requests
from shared.drops import INBOX
from shared.errors import StoreUnavailable
from shared.events import JobControl
from shared.kafka.bus import Delivery
from shared.stages.ledger import RETRIES
from shared.tasks import in_background
from tests.sim.loop import run
from tests.unit.ingest.world import World, at

CONTROL = Delivery("job.control", "e", "api", None)


def listings(world: World, prefix: str) -> int:
    return world.store.calls.count(("list", prefix))


def test_an_idle_inbox_is_listed_once_a_minute_and_an_announcement_at_once() -> None:
    async def body() -> None:
        world = World()
        async with in_background(world.inbox.run()):
            await asyncio.sleep(601)
            assert listings(world, INBOX) <= 12
            world.drop("a.jsonl")
            await world.announce("e", dataset=at("a.jsonl"))
            await asyncio.sleep(0.1)
            assert len(world.manifests()) == 1

    run(body())


def test_what_is_to_be_tried_again_is_looked_at_every_few_seconds() -> None:
    async def body() -> None:
        world = World()
        world.drop("a.jsonl")
        world.store.faults["describe", "a.jsonl"] = StoreUnavailable("one object")
        async with in_background(world.inbox.run()):
            await world.announce("e", dataset=at("a.jsonl"))
            await asyncio.sleep(1)
            world.store.faults.clear()
            for _ in range(30):
                await asyncio.sleep(1)
                world.wait(1)
            assert len(world.manifests()) == 1

    run(body())


@pytest.mark.parametrize(("away", "most"), [(False, 21), (True, 301)])
def test_idle_retries_are_listed_often_only_while_nobody_can_ring(away: bool, most: int) -> None:
    async def body() -> None:
        world = World()
        world.bus.available = not away
        retries = Requests(world.store, world.bus)
        async with in_background(retries.run()):
            await asyncio.sleep(600)
            assert most / 2 < listings(world, RETRIES) <= most

    run(body())


@pytest.mark.parametrize(("action", "more"), [("resume", 1), ("cancel", 0), ("pause", 0)])
def test_a_retry_is_looked_for_as_soon_as_somebody_rings(action: str, more: int) -> None:
    async def body() -> None:
        world = World()
        retries = Requests(world.store, world.bus)
        async with in_background(retries.run()):
            await asyncio.sleep(61)
            before = listings(world, RETRIES)
            await retries.rung(JobControl.model_validate({"job_id": "ftjob-x", "action": action}), CONTROL)
            await asyncio.sleep(0.1)
            assert listings(world, RETRIES) == before + more

    run(body())
