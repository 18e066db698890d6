"""One of all replicas is the janitor, and whatever goes wrong with it, the api goes on."""

from __future__ import annotations

import asyncio
import json

import pytest
from pydantic import SecretStr

from services.api.database import ProjectionDatabase
from services.api.janitor import janitor as module
from services.api.janitor.start import make_janitor
from shared.errors import ConfigError, StoreUnavailable
from shared.retry import Backoff
from shared.settings import JanitorSettings, Settings
from shared.tasks import in_background
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.api.janitor.world import World, job_id

RESUME = f"jobs/{job_id(1)}/trainer/attempt-1/resume/step-1/"
DENIED = ConfigError("the object store denies the access key 'janitor' a right")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(module, "AWAY_PAUSES", Backoff(0.01, 0.01))
    return World()


async def test_it_carries_out_tombstones_and_sweeps_and_gives_its_lease_back(world: World) -> None:
    world.attempt(job_id(1), "trainer", 1, "resume/step-1/manifest.json")
    stone = world.bury(RESUME)
    async with in_background(world.janitor().run()):
        await until(lambda: not world.there(stone), "the tombstone is carried out")
        await until(lambda: world.there("janitor/swept.json"), "the first sweep")
    claim = json.loads(world.store.held["janitor/claim.json"].data)
    assert (claim["owner"], claim["given_back"]) == ("one", True)


async def test_of_two_replicas_one_works_and_the_other_follows_when_it_stops(world: World) -> None:
    async with in_background(world.janitor("one").run()) as first:
        await until(lambda: world.there("janitor/swept.json"), "the first sweep")
        looked = len([call for call in world.store.calls if call[1] == "deleted/"])
        async with in_background(world.janitor("two").run()):
            claims = world.store.calls
            began = len(claims)
            await until(lambda: claims[began:].count(("get", "janitor/claim.json")) > 3, "the second one asks")
            assert json.loads(world.store.held["janitor/claim.json"].data)["owner"] == "one"
            assert looked
            first.cancel()

            def second() -> bool:
                claim = json.loads(world.store.held["janitor/claim.json"].data)
                return claim["owner"] == "two" and not claim["given_back"]

            await until(second, "the second one is the janitor")
            stone = world.bury(RESUME)
            await until(lambda: not world.there(stone), "it works")


async def test_an_outage_makes_it_wait_and_is_no_failure(world: World, caplog: pytest.LogCaptureFixture) -> None:
    async with in_background(world.janitor().run()) as running:
        await until(lambda: world.there("janitor/swept.json"), "it works")
        world.store.available = False
        began = len(world.store.calls)
        await until(lambda: len(world.store.calls) > began + 20, "it tries")
        world.store.available = True
        stone = world.bury(RESUME)
        await until(lambda: not world.there(stone), "it works again")
        assert not running.done()
    assert len([line for line in caplog.records if "waits for the object store" in line.message]) == 1


async def test_a_refusal_is_logged_once_with_the_remedy_and_shown_until_it_is_mended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    [key] = world.attempt(job_id(1), "trainer", 1, "resume/step-1/x")
    stone = world.bury(RESUME)
    world.store.faults["delete", key] = DENIED
    async with in_background(world.janitor().run()) as running:
        began = len(world.store.calls)
        await until(lambda: world.store.calls[began:].count(("delete", key)) > 5, "it tries again")
        await until(lambda: world.there("janitor/swept.json"), "the rest of its work goes on")
        assert (await scrape()).value("tunestream_janitor_refused") == 1
        [line] = [line for line in caplog.records if "refuses the janitor" in line.getMessage()]
        assert "deploy/stack.yaml" in line.getMessage() and "'janitor'" in line.getMessage()
        assert line.reason == str(DENIED)  # type: ignore[attr-defined]
        world.store.faults.clear()
        await until(lambda: not world.there(key, stone), "it is mended")

        async def fine() -> bool:
            return (await scrape()).value("tunestream_janitor_refused") == 0

        await until(fine, "the metric says so")
        assert not running.done()


async def test_what_may_not_be_deleted_does_not_keep_the_index_from_being_rebuilt(world: World) -> None:
    [key] = world.attempt(world.ended(1, attempt=2), "trainer", 1, "x")
    world.store.held.pop(f"jobs/{job_id(1)}/evaluator/result.json")
    world.store.held.pop(f"jobs/{job_id(1)}/inference/result.json")
    failed = world.attempt(world.failed(2), "trainer", 1, "x")
    world.days(8)
    world.store.faults["delete", failed[0]] = DENIED
    with pytest.raises(ConfigError):
        await world.sweep()
    assert [entry.split("/")[1] for entry in world.pending()] == ["evaluator"]
    assert world.there(key, *failed) == [key, *failed]
    world.store.faults.clear()
    await world.sweep()
    assert world.there(key, *failed) == [key]


async def test_a_bug_in_one_task_does_not_stop_the_other_or_the_api(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(certain: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.sweeper, "run_if_due", broken)
    async with in_background(world.janitor().run()) as running:
        for _ in range(3):
            stone = world.bury(RESUME)
            await until(lambda stone=stone: not world.there(stone), "tombstones are carried out")
        assert not running.done()


async def test_it_stops_deleting_when_another_process_has_taken_its_lease(world: World) -> None:
    async with in_background(world.janitor(lease_seconds=0.3).run()):
        await until(lambda: world.there("janitor/swept.json"), "it works")
        theirs = {"owner": "other", "attempt": 9, "expires": world.clock.now + 1e6}
        world.store.add("janitor/claim.json", json.dumps(theirs).encode())
        asking = [("get", "janitor/claim.json")] * 3
        await until(lambda: world.store.calls[-3:] == asking, "it has noticed, and only asks for the lease")
        began = len(world.store.calls)
        stone = world.bury(RESUME)
        await until(lambda: len(world.store.calls) > began + 5, "it asks for the lease")
        assert world.there(stone)
        assert {name for name, _ in world.store.calls[began:]} == {"get"}


async def test_an_idle_janitor_asks_little(world: World) -> None:
    for number in range(100):
        world.ended(number)
    async with in_background(world.janitor(lease_seconds=180.0).run()):
        await until(lambda: world.there("janitor/swept.json"), "the first sweep")
        began = len(world.store.calls)
        await until(lambda: len(world.store.calls) > began + 20, "twenty rounds")
        assert set(world.store.calls[began:]) == {("page", "deleted/")}


async def test_its_credentials_are_its_own_or_else_those_of_the_api(world: World) -> None:
    database = ProjectionDatabase.__new__(ProjectionDatabase)
    settings = Settings(_env_file=None)
    assert make_janitor(world.store, database, settings)._objects is world.store
    own = JanitorSettings(access_key="janitor", secret_key=SecretStr("canary"))
    made = make_janitor(world.store, database, settings.model_copy(update={"janitor": own}))
    assert made._objects._connection.settings.access_key == "janitor"
    assert made._objects._connection.settings.secret_key.get_secret_value() == "canary"
    half = settings.model_copy(update={"janitor": JanitorSettings(access_key="janitor")})
    with pytest.raises(ConfigError, match="TUNESTREAM_JANITOR__SECRET_KEY"):
        make_janitor(world.store, database, half)


async def test_a_lease_that_cannot_be_given_back_does_not_hold_up_the_end(world: World) -> None:
    async with in_background(world.janitor().run()) as running:
        await until(lambda: world.there("janitor/swept.json"), "it works")
        world.store.faults["replace", "janitor/claim.json"] = StoreUnavailable("away")
    with pytest.raises(asyncio.CancelledError):
        running.result()


async def test_a_janitor_that_may_not_even_hold_its_lease_says_so_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.faults["create", "janitor/claim.json"] = DENIED
    async with in_background(world.janitor().run()) as running:
        await until(lambda: world.store.calls.count(("create", "janitor/claim.json")) > 5, "it tries again")
        assert len([line for line in caplog.records if "refuses the janitor" in line.getMessage()]) == 1
        assert (await scrape()).value("tunestream_janitor_refused") == 1
        world.store.faults.clear()
        await until(lambda: world.there("janitor/swept.json"), "it is mended")

        async def fine() -> bool:
            return (await scrape()).value("tunestream_janitor_refused") == 0

        await until(fine, "the metric says so")
        assert not running.done()
