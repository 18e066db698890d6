"""The fake store behaves like the real one."""

from __future__ import annotations

import inspect

import pytest

from shared.errors import StoreUnavailable
from shared.store.objects import ObjectStore
from tests.contract.store_suite import StoreSuite
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore

BUILT_ON_THE_OTHERS = {"upload_folder", "download_folder", "walk"}


class TestFakeStore(StoreSuite):
    @pytest.fixture
    def store(self) -> ObjectStore:
        return FakeStore()


def test_every_method_that_needs_a_server_is_replaced_and_has_the_same_parameters() -> None:
    real = {name: method for name, method in vars(ObjectStore).items() if inspect.isfunction(method)}
    public = {name for name in real if not name.startswith("_")}
    assert public - set(vars(FakeStore)) == BUILT_ON_THE_OTHERS
    for name in public:
        assert list(inspect.signature(getattr(FakeStore, name)).parameters) == list(
            inspect.signature(real[name]).parameters
        )


async def test_the_folders_at_the_top() -> None:
    objects = FakeStore()
    for key in ("jobs/ab/1", "jobs/cd/3", "top"):
        await objects.put(key, b"")
    assert await objects.folders("") == ["jobs"]


async def test_an_outage_reaches_every_bucket() -> None:
    objects = FakeStore()
    other = objects.at("datasets")
    objects.available = False
    with pytest.raises(StoreUnavailable):
        await other.list("")


async def test_a_lost_reply_leaves_the_write() -> None:
    class Lossy(FakeStore):
        async def after(self, operation: str, key: str) -> None:
            raise StoreUnavailable("the reply was lost")

    lossy = Lossy()
    with pytest.raises(StoreUnavailable):
        await lossy.create("a", b"1")
    assert await FakeStore(disk=lossy.disk).get("a") is not None


async def test_the_clock_dates_the_objects() -> None:
    clock = Clock()
    objects = FakeStore(clock=clock)
    await objects.put("a", b"1")
    clock.now += 5
    await objects.put("b", b"2")
    assert [entry.modified for entry in await objects.list("")] == [clock.now - 5, clock.now]


async def test_calls_are_recorded_and_add_is_not_a_call() -> None:
    objects = FakeStore()
    reference = objects.add("a", b"1", {"team": "help"})
    assert objects.calls == []
    assert await objects.read(reference) == b"1"
    assert await objects.metadata("a") == {"team": "help"}
    assert objects.calls == [("read", "a"), ("metadata", "a")]
    assert objects.held["a"].data == b"1"
