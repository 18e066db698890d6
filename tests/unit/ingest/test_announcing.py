"""Kafka is a doorbell: with the bus away datasets still become jobs, each is read once, and every event is published at
least once, also if ingest is killed at any point. And no clock but the store's matters."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shared.errors import StoreRefused, TransientError
from shared.events import DatasetUploaded, Event, Job
from shared.stages.ledger import stage_prefix
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.ingest.test_guards import running
from tests.unit.ingest.world import World, at

KEYS = ("a.jsonl", "b.jsonl", "c.jsonl")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("services.ingest.announcer.CHECK_PAUSES", _Soon())
    monkeypatch.setattr("shared.stages.outbox.PUBLISH_PAUSES", _Soon())
    return World()


class _Soon:
    def jittered(self, failures: int) -> float:
        return 0.01


def markers(world: World) -> list[bytes]:
    return [held.data for key, held in world.store.held.items() if key.startswith("ingest/seen/")]


async def test_while_the_bus_is_fine_an_event_costs_one_marker(world: World) -> None:
    world.drop(*KEYS)
    await world.sweep()
    assert world.uploaded() == list(KEYS)
    assert markers(world) == [b"{}"] * 3
    writes = Counter(operation for operation, _ in world.store.calls)
    assert writes["create"] == 5 * 3 and writes["put"] == 0  # manifest, result, open work, published, marker


async def test_without_a_bus_every_dataset_becomes_a_job_and_is_read_once(world: World) -> None:
    world.bus.available = False
    world.drop(*KEYS)
    await world.announce("one", dataset=at("a.jsonl"), spec={"suffix": "mine"})
    await world.sweep(5)
    await world.inbox.make_jobs()
    await world.inbox.make_jobs()
    assert len([key for key in world.store.held if key.endswith("ingest/result.json")]) == 4
    assert [world.reads(key) for key in KEYS] == [2, 1, 1]  # once for each job
    assert world.uploaded() == []

    async with running(world.announcer.run):
        world.bus.available = True
        await until(lambda: len(world.uploaded()) == 4, "all events are published")
        await until(lambda: set(markers(world)) == {b"{}"}, "the markers say so")
    await world.sweep(5)
    world.start()
    await world.sweep(5)
    async with running(world.announcer.run):
        await world.inbox.make_jobs()
    assert len(world.uploaded()) == 4


async def test_only_the_first_dataset_waits_for_a_bus_that_is_away(world: World) -> None:
    tries = []

    async def away(event: Event) -> None:
        tries.append(event)
        raise TransientError("the bus did not answer in time")

    world.bus.before = away  # type: ignore[method-assign]
    world.drop(*(f"{number}.jsonl" for number in range(50)))
    await world.sweep()
    assert len(tries) == 1
    assert len(markers(world)) == 50


async def test_what_was_not_published_is_published_by_the_next_process(world: World) -> None:
    world.bus.available = False
    world.drop(*KEYS)
    await world.sweep()
    world.start()
    world.bus.available = True
    await world.sweep()
    assert world.uploaded() == []  # all of them are seen
    async with running(world.announcer.run):
        await until(lambda: len(world.uploaded()) == 3, "all events are published")
        await until(lambda: set(markers(world)) == {b"{}"}, "the markers say so")
    assert [world.reads(key) for key in KEYS] == [1, 1, 1]


async def test_another_replica_publishes_what_one_that_ended_for_good_left_behind(world: World) -> None:
    other = World()
    other.store, other.datasets, other.bus = world.store, world.datasets, world.bus
    other.start()
    await other.sweep()
    world.bus.available = False
    world.drop(*KEYS)
    await world.sweep()
    world.bus.available = True
    async with running(other.announcer.run):
        await other.sweep(2, apart=400)
        await until(lambda: sorted(world.uploaded()) == list(KEYS), "all events are published")


async def test_an_event_that_the_outbox_gave_up_is_sent_again(world: World) -> None:
    world.drop("a.jsonl")
    world.bus.available = False
    await world.sweep()
    [key] = [key for key in world.store.held if key.endswith("ingest/result.json")]
    published = key.replace("result", "published")
    world.store.faults["create", published] = StoreRefused("QuotaExceeded", "no")
    world.bus.available = True
    async with running(world.announcer.run):
        await until(lambda: len(world.uploaded()) >= 3, "it is sent again and again")
        world.store.faults.clear()
        await until(lambda: set(markers(world)) == {b"{}"}, "the marker says that it is published")


async def test_a_marker_that_cannot_be_read_stops_no_other(world: World) -> None:
    world.bus.available = False
    world.drop(*KEYS)
    await world.sweep()
    for number, junk in enumerate((b"\xff\xff\xff", b"[" * 100_000, b'{"unpublished": 1}', b'"text"', b"{}{}")):
        world.store.add(f"ingest/seen/{number}", junk)
    world.bus.available = True
    world.start()
    await world.sweep()
    async with running(world.announcer.run):
        await until(lambda: len(world.uploaded()) == 3, "the others are published")


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("bus", [True, False])
@pytest.mark.parametrize("after", [False, True])
async def test_killed_at_any_point_no_dataset_is_lost_or_made_twice(bus: bool, after: bool) -> None:
    """The process is killed before or after its first, second, … call, until it survives."""
    point, hook = 0, "after" if after else "before"
    while True:
        point += 1
        world = World()
        world.bus.available = bus
        world.drop(*KEYS)
        left = point

        def countdown() -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        async def call(self: object, operation: str, key: str, countdown=countdown) -> None:  # type: ignore[no-untyped-def]
            countdown()

        async def publish(event: Event, world: World = world, countdown=countdown) -> None:  # type: ignore[no-untyped-def]
            if hook == "before" and not world.bus.available:
                raise TransientError("away")
            countdown()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.support.fakes.faults.FaultyStore." + hook, call)
            patch.setattr(world.bus, hook, publish)
            try:
                await world.sweep()
                killed = False
            except Killed:
                killed = True
        world.bus.available = True
        world.start()
        await world.sweep(3)
        await world.announcer.settle()
        async with running(world.announcer.run):
            await until(lambda world=world: set(world.uploaded()) == set(KEYS), f"killed at {point}: all are published")
        assert len([key for key in world.store.held if key.endswith("/job.json")]) == 3
        assert len({event.job_id for event in world.bus.events(DatasetUploaded)}) == 3  # type: ignore[attr-defined]
        if not killed:
            assert point > 15
            return


async def test_two_replicas_at_once_make_one_job_of_each_dataset(world: World) -> None:
    other = World()
    other.store, other.datasets, other.bus = world.store, world.datasets, world.bus
    other.start()
    keys = [f"{number}.jsonl" for number in range(20)]
    world.drop(*keys)
    await asyncio.gather(world.sweep(2), other.sweep(2))
    assert set(world.uploaded()) == set(keys)
    assert len([key for key in world.store.held if key.endswith("/job.json")]) == 20


@pytest.mark.parametrize("off", [-3600.0, -60.0, 60.0, 3600.0])
async def test_a_wrong_clock_of_the_service_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    monkeypatch.setattr("time.time", lambda: world.store_time + off)
    before = await scrape()
    world.drop("a.jsonl")
    await world.sweep(apart=0.5)
    assert world.uploaded() == []  # it may be overwritten again
    await world.sweep(apart=0.6)
    assert world.uploaded() == ["a.jsonl"]
    assert (await scrape()).since(before)("tunestream_ingest_seconds_sum") == pytest.approx(1.1)
    [job] = [Job.model_validate_json(held.data) for key, held in world.store.held.items() if key.endswith("/job.json")]
    assert job.created_at == world.store_time
    assert stage_prefix(job.job_id, "ingest") + "published.json" in world.store.held
