"""The runner: of several replicas one works, and whatever goes wrong with one sweep, the others go on."""

from __future__ import annotations

import ast
from contextlib import AsyncExitStack

import pytest

from services.api.resources.dependencies import Dependencies
from services.api.sweeps import runner as runners
from services.api.sweeps.runner import SweepRunner
from services.api.sweeps.start import make_runner
from shared.errors import StoreRefused, StoreUnavailable
from shared.retry import Backoff
from shared.tasks import in_background
from tests.support.fakes.store import FakeStore
from tests.support.user import ROOT
from tests.support.waiting import until
from tests.unit.api.conftest import URL
from tests.unit.api.sweeps.world import World

RATE = {"learning_rate_multiplier": {"low": 0.5, "high": 2.0}}


def replica(world: World, owner: str = "me") -> SweepRunner:
    dependencies = Dependencies(world.api.database, world.api.projection, world.objects, world.api.bus, URL)
    return make_runner(dependencies, owner=owner, tick_seconds=0.001, look_seconds=0.001)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "AWAY_PAUSES", Backoff(0.001, 0.01))
    monkeypatch.setattr(runners, "ASK_SECONDS", 0.001)


async def asked(world: World) -> list[str]:
    return [key for key in world.objects.held if key.startswith("ingest/asked/")]


async def test_a_new_sweep_begins_and_ends_by_itself_and_the_lease_is_given_back(world: World) -> None:
    async with in_background(replica(world).run()):
        sweep = await world.sweep(space=RATE, trials=2)

        async def over() -> bool:
            await world.work()
            return (await world.view(sweep))["status"] == "succeeded"

        await until(over, "the sweep ends")
        await until(lambda: b'"given_back":true' in world.objects.held["sweeps/claim.json"].data, "the lease is free")
    assert len(await world.trials()) == 2


async def test_two_replicas_ask_for_no_trial_twice(world: World) -> None:
    async with AsyncExitStack() as stack:
        for owner in ("one", "two"):
            await stack.enter_async_context(in_background(replica(world, owner).run()))
        sweep = await world.sweep(space=RATE, trials=3, parallel=3)
        await until(lambda: len([key for key in world.objects.held if key.startswith("ingest/asked/")]) == 3, "three")
        assert len((await world.view(sweep))["data"]) == 3


async def test_a_store_that_is_away_only_delays_a_sweep(world: World) -> None:
    await world.sweep(space=RATE, trials=1)
    world.objects.available = False
    async with in_background(replica(world).run()):
        await until(lambda: len([call for call in world.objects.calls if call[0] == "folders"]) > 3, "a few tries")
        world.objects.available = True
        await until(lambda: asked(world), "the first trial")


async def test_a_sweep_that_cannot_go_on_does_not_stop_the_others(world: World) -> None:
    stuck = await world.sweep(space=RATE, trials=1)
    world.api.clock.now += 1
    await world.sweep(space=RATE, trials=1)

    class Partly(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if operation == "create" and key.startswith(f"sweeps/{stuck}/trials"):
                raise StoreUnavailable("a test said so")

    world.api.objects = Partly(clock=world.api.clock, disk=world.objects.disk)  # type: ignore[assignment]
    async with in_background(replica(world).run()):
        await until(lambda: asked(world), "the trial of the other one")


async def test_what_the_store_refuses_is_said_once_and_again_after_it_was_mended(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    refusing = True

    class Refusing(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if refusing and operation == "create" and "/trials/" in key:
                raise StoreRefused("AccessDenied", "the key may not write here")

    def told() -> int:
        return sum("refuses sweeps" in record.message for record in caplog.records)

    async def tried_often() -> None:
        before = len(world.objects.calls)
        await until(lambda: len(world.objects.calls) > before + 20, "a few tries")

    world.api.objects = Refusing(clock=world.api.clock, disk=world.objects.disk)  # type: ignore[assignment]
    async with in_background(replica(world).run()):
        for times in (1, 2):
            refusing = True
            world.api.clock.now += 1
            await world.sweep(space=RATE, trials=1)
            await until(lambda times=times: told() == times, "it is said")  # type: ignore[misc]
            await tried_often()
            assert told() == times
            refusing = False

            async def begun(times: int = times) -> bool:
                return len(await asked(world)) == times

            await until(begun, "its trial")
            await tried_often()


async def test_while_no_sweep_is_under_way_a_look_is_one_call(world: World) -> None:
    world.objects.calls.clear()
    async with in_background(replica(world).run()):
        await until(lambda: len(world.objects.calls) > 5, "a few looks")
    assert set(world.objects.calls) == {("folders", "sweeps/")}


def test_the_service_starts_without_optuna() -> None:
    """Nothing imports it before it is needed: images may lack it, and it takes half a second."""
    for path in (ROOT / "services" / "api").rglob("*.py"):
        for statement in ast.parse(path.read_text()).body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                names = [getattr(statement, "module", ""), *(alias.name for alias in statement.names)]
                assert not [name for name in names if name and name.split(".")[0] == "optuna"], path
