"""Synthesis as a stage: a spec in the bucket becomes a dataset beside it, once, whatever happens to the replicas."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml

from services.ingest.domain.synthesis.history import Begun
from services.ingest.synthesis import stage as stage_module
from services.ingest.synthesis.stage import SynthesisStage
from services.ingest.synthesis.stored_journal import StoredJournal
from shared.errors import InputError, LeaseLost
from shared.events import DatasetPointer, SynthesisProgress, SynthesisRequested
from shared.kafka.bus import Delivery
from shared.settings import SynthesisSettings
from shared.stages import quarantine
from shared.tasks import cancel_and_wait
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.fakes.store import FakeStore
from tests.support.waiting import eventually
from tests.unit.ingest.synthesis.world import spec, writer

KEY = "team/support.synthesis.yaml"
DELIVERY = Delivery("synthesis.requested", "1", "stranger", None)


class World:
    """A store, a bus, a strong model, and as many replicas of the stage as a test starts."""

    def __init__(self, url: str, model: FakeModel) -> None:
        self.store, self.bus, self.url, self.model = FakeStore(), FakeBus(), url, model
        self.datasets = self.store.at("datasets")

    def drop(self, key: str = KEY, **changes: Any) -> None:
        values = spec(self.url, **changes).model_dump(mode="json", exclude_defaults=True)
        self.datasets.add(key, yaml.safe_dump(values).encode())

    @asynccontextmanager
    async def replica(
        self, name: str = "one", keys: dict[str, str | None] | None = None, **settings: Any
    ) -> AsyncIterator[SynthesisStage]:
        allowed = {f"{self.url}/v1": None} if keys is None else keys
        stage = SynthesisStage(
            self.store,
            self.datasets,
            self.bus,
            SynthesisSettings.model_validate({"keys": allowed, **settings}),
            owner=name,
            lease_seconds=0.5,
        )
        stage.listed(await self.datasets.list(""))
        task = asyncio.create_task(stage.run())
        try:
            yield stage
        finally:
            await cancel_and_wait(task)

    async def told(self, state: str, count: int = 1) -> list[SynthesisProgress]:
        """The events of one state, as soon as there are `count` of them."""
        found: list[SynthesisProgress] = []

        async def look() -> None:
            events = [e for e in self.bus.events(SynthesisProgress) if isinstance(e, SynthesisProgress)]
            found[:] = [event for event in events if event.state == state]
            assert len(found) >= count, events

        await eventually(look, AssertionError)
        return found

    async def has_asked(self, count: int) -> None:
        assert len(self.model.requests) >= count

    async def quarantined(self, count: int) -> None:
        """Make sure that so many unsolved entries tell of the spec."""
        held = [each for each in (await quarantine.read_all(self.store)).values() if each.solved_at is None]
        assert [each.place for each in held] == [f"s3://datasets/{KEY}"] * count

    def rows(self, key: str = "team/support.jsonl") -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.datasets.held[key].data.splitlines()]

    def asked(self) -> Counter[str]:
        return Counter(json.dumps(body, sort_keys=True) for body in self.model.requests)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(stage_module, "LOOK_SECONDS", 0.02)
    model = FakeModel({"strong": writer})
    async with serve(model) as url:
        yield World(url, model)


async def test_a_spec_becomes_a_dataset_beside_it(world: World) -> None:
    world.drop()
    async with world.replica():
        [completed] = await world.told("completed")
    assert completed.dataset == DatasetPointer(bucket="datasets", key="team/support.jsonl")
    assert (completed.made, completed.wanted, completed.refused) == (10, 10, 0)
    assert completed.tokens > 0
    assert len(world.rows()) == 10
    [started] = await world.told("started")
    assert started.spec == DatasetPointer(bucket="datasets", key=KEY)


async def test_replicas_never_make_one_spec_twice(world: World) -> None:
    world.drop(count=20)
    async with world.replica("one"), world.replica("two"), world.replica("three"):
        await world.told("completed")
    async with world.replica("four"):
        world.drop("other.synthesis.yaml", count=1, seed=1)
    async with world.replica("five"):
        await world.told("completed", 2)
    assert set(world.asked().values()) == {1}
    assert len(world.model.requests) == 3 * 21


async def test_what_a_stopped_service_has_begun_goes_on_elsewhere(world: World) -> None:
    world.drop(count=20)
    async with world.replica("one"):
        await eventually(lambda: world.has_asked(25), AssertionError)
    assert "team/support.jsonl" not in world.datasets.held
    async with world.replica("two"):
        await world.told("completed")
    assert len(world.rows()) == 20
    assert set(world.asked().values()) == {1}


async def test_a_larger_budget_goes_on_with_what_there_is(world: World) -> None:
    world.drop(budget={"tokens": 25_000}, count=20)
    async with world.replica() as stage:
        [first] = await world.told("completed")
        assert "the budget is reached" in first.message
        made = len(world.rows())
        assert 0 < made < 20
        world.drop(count=20)
        stage.listed(await world.datasets.list(""))
        await world.told("completed", 2)
    assert len(world.rows()) == 20
    assert set(world.asked().values()) == {1}


async def test_only_the_endpoints_of_the_operator_are_asked(world: World) -> None:
    world.drop()
    async with world.replica(keys={"https://api.openai.com/v1": "sk-secret"}):
        [failed] = await world.told("failed")
    assert "is not in TUNESTREAM_SYNTHESIS__KEYS" in failed.message
    assert world.model.requests == []


@pytest.mark.parametrize(
    ("budget", "field"),
    [({"tokens": 50_001}, "tokens"), ({"money": 2.5}, "tokens"), ({"tokens": 50_000, "money": 2.51}, "money")],
)
async def test_no_spec_may_spend_more_than_the_operator_allows(
    budget: dict[str, float], field: str, world: World
) -> None:
    world.drop(budget=budget)
    async with world.replica(max_tokens=50_000, max_money=2.5 if field == "money" else None):
        [failed] = await world.told("failed")
    assert failed.message.startswith(f"budget.{field}: ")
    assert f"TUNESTREAM_SYNTHESIS__MAX_{field.upper()}" in failed.message
    assert not world.model.requests


async def test_a_spec_within_the_operators_limits_is_made(world: World) -> None:
    world.drop(budget={"tokens": 50_000, "money": 2.5})
    async with world.replica(max_tokens=50_000, max_money=2.5):
        await world.told("completed")


async def test_the_operators_key_goes_to_its_endpoint(world: World) -> None:
    world.drop(count=1)
    async with world.replica(keys={f"{world.url}/v1/": "sk-secret"}):
        await world.told("completed")
    assert {headers["authorization"] for headers in world.model.headers} == {"Bearer sk-secret"}


async def test_a_spec_that_is_wrong_is_told_once_and_tried_again_when_it_changes(world: World) -> None:
    world.datasets.add(KEY, b"task: x\n")
    async with world.replica() as stage:
        [failed] = await world.told("failed")
        assert "scenarios: is missing" in failed.message
        await eventually(lambda: world.quarantined(1), AssertionError)
        world.drop()
        stage.listed(await world.datasets.list(""))
        await world.told("completed")
        await eventually(lambda: world.quarantined(0), AssertionError)
    assert len(await world.told("failed")) == 1


async def test_a_dataset_of_somebody_else_is_not_written_over(world: World) -> None:
    world.drop()
    world.datasets.add("team/support.jsonl", b"mine\n")
    async with world.replica():
        [failed] = await world.told("failed")
    assert "no synthesis has made it" in failed.message
    assert world.datasets.held["team/support.jsonl"].data == b"mine\n"
    assert world.model.requests == []


async def test_an_endpoint_that_is_away_for_long_is_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.drop(count=1)
    world.model.failures = [(503, {"retry-after": "86400"})]
    async with world.replica():
        [waiting] = await world.told("waiting")
        assert "answers 503" in waiting.message


async def test_an_event_begins_a_spec_at_once(world: World) -> None:
    async with world.replica() as stage:
        world.drop()
        await stage.requested(SynthesisRequested(spec=DatasetPointer(bucket="datasets", key=KEY)), DELIVERY)
        await world.told("completed")


@pytest.mark.parametrize(
    ("bucket", "key"), [("datasets", "none.synthesis.yaml"), ("datasets", "a.yaml"), ("tunestream", KEY)]
)
async def test_an_event_that_names_no_spec_is_refused(world: World, bucket: str, key: str) -> None:
    async with world.replica() as stage:
        with pytest.raises(InputError):
            await stage.requested(SynthesisRequested(spec=DatasetPointer(bucket=bucket, key=key)), DELIVERY)


async def test_of_two_owners_of_one_journal_the_later_sends_nothing() -> None:
    store = FakeStore()
    one, two = [await StoredJournal.open(store, "p/", "d") for _ in range(2)]
    await one.append(Begun(digest="d"))
    with pytest.raises(LeaseLost):
        await two.append(Begun(digest="e"))
    assert (await StoredJournal.open(store, "p/", "d")).history.digest == "d"
