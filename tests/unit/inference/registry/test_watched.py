"""What all replicas obey is known within seconds, for a bounded number of calls, and nobody waits for a store that is
away."""

from __future__ import annotations

import asyncio

import pytest

from services.inference.registry import watched
from services.inference.registry.watched import (
    FRESH_SECONDS,
    STALE_SECONDS,
    TROUBLE_SECONDS,
    DeletedModels,
    Permissions,
)
from shared.errors import ConfigError, StoreUnavailable
from shared.events import CheckpointPermission
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until


class Slow(FakeStore):
    """A call waits while `hangs` is set, and then answers."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock=clock)
        self.answers = asyncio.Event()
        self.answers.set()
        self.refuses = False

    async def after(self, operation: str, key: str) -> None:
        await self.answers.wait()
        if self.refuses:
            raise ConfigError("no rights")


@pytest.fixture
def store(clock: Clock) -> Slow:
    return Slow(clock)


@pytest.fixture
def deleted(store: Slow, clock: Clock) -> DeletedModels:
    return DeletedModels(store, timer=clock)


def bury(store: FakeStore, name: str) -> None:
    store.add(f"deleted/models/{name}.json", b"{}")


def lists(store: FakeStore) -> int:
    return len([name for name, _ in store.calls if name == "list"])


async def test_with_requests_it_is_listed_once_a_second_and_nobody_waits(
    store: Slow, deleted: DeletedModels, clock: Clock
) -> None:
    assert not await deleted.has("one")
    bury(store, "one")
    for _ in range(100):
        assert not await deleted.has("one")
    assert lists(store) == 1
    clock.now += FRESH_SECONDS
    store.answers.clear()
    for _ in range(100):
        assert not await asyncio.wait_for(deleted.has("one"), 10), "the old list is served meanwhile"
    store.answers.set()
    await until(lambda: deleted.has("one"), "it is known")
    assert lists(store) == 2


async def test_after_a_pause_the_first_request_waits_for_news(
    store: Slow, deleted: DeletedModels, clock: Clock
) -> None:
    assert not await deleted.has("one")
    bury(store, "one")
    clock.now += STALE_SECONDS
    assert await deleted.has("one")


async def test_a_store_that_is_away_lets_one_request_wait_and_is_asked_once_a_second(
    store: Slow, deleted: DeletedModels, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watched, "REFRESH_SECONDS", 0.01)
    bury(store, "one")
    assert await deleted.has("one")
    store.available = False
    clock.now += STALE_SECONDS
    for _ in range(100):
        assert await deleted.has("one") and not await deleted.has("two")
    assert lists(store) == 2
    clock.now += FRESH_SECONDS
    for _ in range(100):
        assert await deleted.has("one")
    await until(lambda: lists(store) == 3, "it is asked again")
    store.available = True
    bury(store, "two")
    clock.now += TROUBLE_SECONDS
    assert await deleted.has("two")


async def test_nothing_is_known_before_the_first_list(store: Slow, deleted: DeletedModels) -> None:
    store.available = False
    with pytest.raises(StoreUnavailable):
        await deleted.has("one")
    store.available = True
    assert not await deleted.has("one")


async def test_a_list_that_was_begun_before_a_deletion_does_not_undo_it(
    store: Slow, deleted: DeletedModels, clock: Clock
) -> None:
    assert not await deleted.has("one")
    clock.now += FRESH_SECONDS
    store.answers.clear()
    assert not await deleted.has("one")
    deleted.learn("one")
    store.answers.set()
    await until(lambda: not list(deleted._listings), "the list is made")
    assert await deleted.has("one")


async def test_a_store_that_refuses_the_list_is_one_without_any_and_is_said_once(
    store: Slow, deleted: DeletedModels, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """As with the rights of an older version."""
    store.refuses = True
    for _ in range(3):
        assert not await deleted.has("one")
        clock.now += STALE_SECONDS
    assert [line.levelname for line in caplog.records] == ["ERROR"]


async def test_only_permissions_that_changed_are_read_again(store: Slow, clock: Clock) -> None:
    permissions = Permissions(store, timer=clock)
    keys = []
    for number in range(50):
        document = CheckpointPermission(
            permission_id=f"cp_{number}", model=f"ft:{number}", owner="one", project_id="other", created_at=1.0
        )
        keys.append(f"permissions/ftjob-{number}/cp_{number}.json")
        store.add(keys[-1], document.model_dump_json().encode())
    assert len(await permissions.given("other")) == 50
    assert not await permissions.given("one")
    store.calls.clear()
    store.add(keys[7], document.model_copy(update={"revoked_at": 2.0}).model_dump_json().encode())
    clock.now += STALE_SECONDS
    assert len(await permissions.given("other")) == 49
    assert store.calls == [("list", "permissions/"), ("get", keys[7])]
