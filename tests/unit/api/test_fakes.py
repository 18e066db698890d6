"""The fakes that many tests stand on are what they stand in for."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from shared.bus import Bus
from shared.errors import AlreadyExists, Conflict, CorruptObject, InputError, StoreUnavailable
from shared.events import DatasetPointer
from shared.objects import ObjectStore
from tests.support.bus import FakeBus
from tests.support.store import FakeStore


def interface(kind: type[Any]) -> dict[str, list[str]]:
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: list(inspect.signature(method).parameters) for name, method in found if not name.startswith("_")}


def test_the_fake_store_has_the_methods_of_the_real_one() -> None:
    assert interface(ObjectStore).items() <= interface(FakeStore).items()


def test_the_fake_bus_publishes_and_subscribes_as_the_real_one() -> None:
    real, fake = interface(Bus), interface(FakeBus)
    assert {name: fake[name] for name in ("publish", "subscribe")} == {
        name: real[name] for name in ("publish", "subscribe")
    }


async def test_conditions() -> None:
    objects = FakeStore()
    etag = await objects.create("a", b"1")
    with pytest.raises(AlreadyExists):
        await objects.create("a", b"2")
    newer = await objects.replace("a", b"2", etag)
    with pytest.raises(Conflict):
        await objects.replace("a", b"3", etag)
    with pytest.raises(Conflict):
        await objects.replace("absent", b"3", etag)
    assert await objects.get("a") == (b"2", newer)
    assert await objects.get("absent") is None


async def test_listing() -> None:
    objects = FakeStore()
    for key in ("jobs/ab/1", "jobs/ab/x/2", "jobs/cd/3", "top"):
        await objects.put(key, b"")
    assert [entry.key for entry in await objects.list("jobs/ab/")] == ["jobs/ab/1", "jobs/ab/x/2"]
    assert await objects.folders("jobs/") == ["ab", "cd"]
    assert await objects.folders("jobs/a") == ["ab"]
    assert await objects.folders("") == ["jobs"]


async def test_reading_verifies_and_describing_compares(tmp_path: Path) -> None:
    objects = FakeStore()
    reference = await objects.at("datasets").put("d.jsonl", b"rows")
    assert await objects.read(reference) == b"rows"
    assert await objects.describe(DatasetPointer(bucket="datasets", key="d.jsonl", size=4)) == reference
    with pytest.raises(InputError, match=r"d\.jsonl"):
        await objects.describe(DatasetPointer(bucket="datasets", key="d.jsonl", size=5))
    await objects.at("datasets").put("d.jsonl", b"other")
    with pytest.raises(CorruptObject):
        await objects.download(reference, tmp_path / "d.jsonl")


async def test_folders_travel_whole(tmp_path: Path) -> None:
    objects, source = FakeStore(), tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "file").write_bytes(b"x")
    folder = await objects.upload_folder("adapter", source)
    await objects.download_folder(folder, tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "file").read_bytes() == b"x"


async def test_an_outage_reaches_every_bucket() -> None:
    objects = FakeStore()
    other = objects.at("datasets")
    objects.available = False
    with pytest.raises(StoreUnavailable):
        await other.list("")
