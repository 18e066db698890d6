"""What ingest has handled goes after its days, and that does no harm: nothing becomes a job twice."""

from __future__ import annotations

import pytest

from services.api.janitor.family import Family
from services.api.janitor.leftovers import Leftovers
from shared.events import Quarantined
from shared.stages import quarantine
from shared.stages.ledger import asked_key, retry_key
from tests.unit.api.janitor.world import World, certain, folder, job_id, result


@pytest.fixture
def world() -> World:
    return World()


async def test_requests_for_retries_stay_until_nobody_needs_them(world: World) -> None:
    parent = world.failed(1)
    children = [job_id(number) for number in range(2, 8)]
    adopted, on_parent, under_way, unpublished, has_child, unmade = children
    for child in children:
        world.retry(parent, child)
    theirs = folder(f"jobs/{parent}/trainer/attempt-1/checkpoints/step-1/")
    world.ended(2)
    world.ended(3, trained={"checkpoints": [theirs]})
    world.job(4, result(under_way, "ingest"))
    world.ended(5)
    del world.store.held[f"jobs/{unpublished}/ingest/published.json"]
    world.ended(6)
    world.retry(has_child, job_id(9))
    await world.sweep(inbox_days=7)
    assert len(world.there(*map(retry_key, children))) == 6
    world.days(8)
    await world.sweep()
    assert world.there(*map(retry_key, children)) == [
        retry_key(child) for child in (on_parent, under_way, unpublished, has_child, unmade)
    ]
    assert adopted not in str(world.there(*map(retry_key, children)))


async def test_requests_for_jobs_go_when_the_job_is_made_and_no_repeat_can_mean_them(world: World) -> None:
    world.ended(1)
    world.job(2, result(job_id(2), "ingest"))
    del world.store.held[f"jobs/{job_id(2)}/ingest/published.json"]
    world.clock.now += 21_600 - 599  # a sweep comes six hours later
    for number in (1, 2, 3):
        world.store.add(asked_key(job_id(number)), b"{}")
    world.clock.now -= 21_600 - 599
    await world.sweep(inbox_days=0.0001)
    assert len(world.there(*(asked_key(job_id(number)) for number in (1, 2, 3)))) == 3
    await world.sweep()
    assert world.there(*(asked_key(job_id(number)) for number in (1, 2, 3))) == [
        asked_key(job_id(number)) for number in (2, 3)
    ]


async def test_problems_that_are_solved_go_and_those_that_are_not_stay(world: World) -> None:
    about = Quarantined(kind="drop", place="s3://datasets/a", reason="denied", at=world.clock.now)
    for name in ("solved", "open", "late"):
        await quarantine.hold(world.store, name, about)
    world.store.add("quarantine/drop/odd.json", b"{")
    await quarantine.solve(world.store, "drop", "solved")
    world.days(4)
    await quarantine.solve(world.store, "drop", "late")
    world.days(4)
    await world.sweep()
    assert sorted(key for key in world.store.held if key.startswith("quarantine/")) == [
        "quarantine/drop/late.json",
        "quarantine/drop/odd.json",
        "quarantine/drop/open.json",
    ]


async def test_without_an_old_marker_the_datasets_are_not_listed(world: World) -> None:
    world.store.add("ingest/seen/new", b"{}")
    await Leftovers(world.store, "datasets", 7.0).remove(Family(world.store), certain)
    assert ("page", "") not in world.store.calls


async def test_deliveries_of_webhooks_go_two_weeks_after_the_last_word_of_them(world: World) -> None:
    endpoint, old, new = (
        f"webhooks/{name}.json" for name in ("endpoints/whe_a", "deliveries/whe_a/1", "deliveries/b/2")
    )
    world.store.add(endpoint, b"{}")
    world.store.add(old, b"{}")
    world.days(10)
    world.store.add(new, b"{}")
    await world.sweep()
    assert world.there(endpoint, old, new) == [endpoint, old, new]
    world.days(5)
    await world.sweep()
    assert world.there(endpoint, old, new) == [endpoint, new]
