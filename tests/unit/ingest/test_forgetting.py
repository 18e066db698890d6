"""What ingest remembers does not grow for ever, and what it forgets does not come back as another job."""

from __future__ import annotations

import pytest

from services.api.janitor.family import Family
from services.api.janitor.leftovers import Leftovers
from services.ingest.requests import Requests
from shared.drops import INBOX, SEEN
from shared.errors import StoreRefused
from shared.stages.ledger import RETRIES
from tests.unit.ingest.world import World, at

DAY = 86_400.0


@pytest.fixture
def world() -> World:
    return World()


async def certain() -> None:
    """The lease of the janitor."""


async def janitor(world: World, days: float = 7.0) -> None:
    family = Family(world.store)
    await family.look()
    await Leftovers(world.store, "datasets", days).remove(family, certain)


def markers(world: World) -> int:
    return sum(key.startswith(SEEN) for key in world.store.held)


def inbox(world: World) -> int:
    return sum(key.startswith(INBOX) for key in world.store.held)


async def later(world: World, days: float = 8.0) -> None:
    """Days later: the janitor has been there, and ingest, in the same process and in a new one, looks at everything."""
    world.wait(days * DAY)
    for _ in range(2):  # an announcement goes before its marker
        await janitor(world)
    await world.sweep(3)
    await world.inbox.make_jobs()
    world.start()
    await world.sweep(3)
    await world.inbox.make_jobs()


async def test_the_marker_of_a_dataset_that_is_still_there_stays_and_nothing_is_read_again(world: World) -> None:
    world.drop("a.jsonl", "team/b.jsonl", "settings.jsonl", job=b"suffix: x")
    world.drop("plain.jsonl")
    world.datasets.add("refused.jsonl", b"{}")
    world.store.faults["describe", "refused.jsonl"] = StoreRefused("InvalidObjectState", "archived")
    await world.sweep(3)
    assert markers(world) == 5
    reads = sum(name == "describe" for name, _ in world.store.calls)
    await later(world)
    assert markers(world) == 5
    assert sum(name == "describe" for name, _ in world.store.calls) == reads
    assert len(world.manifests()) == 4 and len(world.uploaded()) == 4


async def test_the_marker_of_a_dataset_that_is_gone_goes_and_the_same_drop_is_still_the_same_job(world: World) -> None:
    world.drop("gone.jsonl", "edited.jsonl", job=b"suffix: x")
    await world.sweep(3)
    del world.datasets.held["gone.jsonl"], world.datasets.held["gone.job.yaml"]
    world.datasets.add("edited.job.yaml", b"suffix: y")
    await world.sweep(3)
    assert (markers(world), len(world.manifests())) == (3, 3)
    await later(world)
    assert markers(world) == 1, "that of the dataset and the settings that are there"
    world.drop("gone.jsonl", job=b"suffix: x")
    await world.sweep(3)
    assert len(world.manifests()) == 3
    assert markers(world) == 2


async def test_even_without_any_marker_no_dataset_makes_a_second_job(world: World) -> None:
    world.drop("a.jsonl", "b.jsonl")
    await world.announce("e1", dataset=at("a.jsonl"))
    await world.sweep(3)
    await world.inbox.make_jobs()
    before = sorted(job["job_id"] for job in world.manifests())
    for key in [key for key in world.store.held if key.startswith("ingest/")]:
        del world.store.held[key]
    world.start()
    await world.announce("e1", dataset=at("a.jsonl"))  # Kafka delivers it again
    await world.sweep(3)
    await world.inbox.make_jobs()
    assert sorted(job["job_id"] for job in world.manifests()) == before


async def test_announcements_go_when_they_are_handled_and_old_and_their_markers_after_them(world: World) -> None:
    world.drop("a.jsonl", "b.jsonl")
    await world.announce("job", dataset=at("a.jsonl"))
    await world.inbox.make_jobs()
    world.store.faults["describe", "b.jsonl"] = StoreRefused("AccessDenied", "a policy")
    await world.announce("denied", dataset=at("b.jsonl"))
    await world.inbox.make_jobs()
    assert inbox(world) == 2
    await janitor(world)
    assert inbox(world) == 2
    world.wait(8 * DAY)
    await janitor(world)
    assert inbox(world) == 0, "one has its job, and the other is in quarantine, where people see it"
    assert markers(world) == 2
    assert len(await world.quarantined()) == 1
    await janitor(world)
    assert markers(world) == 0
    await world.inbox.make_jobs()
    assert len(world.manifests()) == 1


async def test_an_announcement_that_waits_stays_however_old(world: World) -> None:
    world.drop("a.jsonl")
    await world.announce("waits", dataset=at("a.jsonl"))
    world.store.faults["describe", "a.jsonl"] = RuntimeError("a bug")
    for _ in range(4):
        world.wait(3 * DAY)
        await world.inbox.make_jobs()
        await janitor(world)
    assert inbox(world) == 1
    world.store.faults.clear()
    world.wait(DAY)
    await world.inbox.make_jobs()
    assert len(world.manifests()) == 1


async def test_a_marker_of_an_event_that_is_not_published_stays(world: World) -> None:
    world.drop("a.jsonl")
    world.bus.available = False
    await world.sweep(3)
    del world.datasets.held["a.jsonl"]
    world.wait(30 * DAY)
    await janitor(world)
    assert markers(world) == 1


async def test_an_announcement_that_the_janitor_deletes_while_it_is_looked_at_is_no_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.drop("a.jsonl")
    await world.announce("e", dataset=at("a.jsonl"))
    [key] = [key for key in world.store.held if key.startswith(INBOX)]
    entries = await world.store.list(INBOX)
    del world.store.held[key]
    await world.inbox._look(entries[0])
    assert await world.quarantined() == [] and world.manifests() == []
    assert [line for line in caplog.records if line.levelname in ("WARNING", "ERROR")] == []


async def test_memory_holds_only_what_is_in_the_ledger(world: World) -> None:
    world.drop(*(f"{number}.jsonl" for number in range(20)))
    await world.sweep(3)
    for number in range(19):
        del world.datasets.held[f"{number}.jsonl"]
    await later(world)
    world.wait(3600)
    await world.sweep(2)
    assert len(world.deduplicator._seen) == len(world.deduplicator._new | world.deduplicator._seen) == 1


async def test_requests_for_retries_that_are_gone_are_forgotten(world: World) -> None:
    retries = Requests(world.store, world.bus)
    for number in range(20):
        world.store.add(f"{RETRIES}ftjob-{number}.json", b"{")
    await retries.make_jobs()
    assert len(retries._done) == 20
    for key in [key for key in world.store.held if key.startswith(RETRIES)][:19]:
        del world.store.held[key]
    await retries.make_jobs()
    assert len(retries._done) == 1


async def test_an_announcement_whose_event_is_not_published_stays(world: World) -> None:
    world.drop("a.jsonl")
    world.bus.available = False
    await world.announce("e", dataset=at("a.jsonl"))
    await world.inbox.make_jobs()
    world.wait(30 * DAY)
    await janitor(world)
    assert (inbox(world), markers(world)) == (1, 1)


async def test_what_is_marked_while_all_markers_are_listed_is_not_forgotten(world: World) -> None:
    world.drop("a.jsonl", "b.jsonl")
    await world.deduplicator.load()
    world.wait(3600)
    listed = world.store.after

    async def marked(operation: str, key: str) -> None:
        await listed(operation, key)
        if (operation, key) == ("list", SEEN):
            await world.deduplicator._mark("late", b"{}")

    world.store.after = marked  # type: ignore[method-assign]
    await world.deduplicator.load()
    assert "late" in world.deduplicator._seen
