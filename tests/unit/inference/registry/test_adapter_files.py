"""Adapters on the disk are deleted when nobody needs them, and never while somebody does."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.domain.retention import given_up
from services.inference.registry import adapter_files as module
from services.inference.registry.adapter_files import DAY, QUIET_SECONDS, TIDY_SECONDS, AdapterFiles
from services.inference.registry.trained import Trained, TrainedModels
from shared.errors import StoreUnavailable
from shared.settings import RetentionSettings
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.unit.inference.conftest import ServiceUnderTest, running_service

MOST = 3


class Disk:
    """A folder of adapters, and one replica that looks at it."""

    def __init__(self, folder: Path, objects: FakeStore, clock: Clock) -> None:
        self.folder, self.objects, self.clock = folder, objects, clock
        self.files = self.replica()
        self.in_use: set[Path] = set()
        self.named: set[Path] = set()
        self.asked = 0

    def replica(self) -> AdapterFiles:
        retention = RetentionSettings(adapters=MOST, adapter_days=30.0)
        return AdapterFiles(
            self.objects, folder=self.folder, base=BASE, max_rank=64, retention=retention, timer=self.clock
        )

    async def trained(self, name: str) -> Trained:
        found = await TrainedModels(self.objects).find(await add_trained(self.objects, name))
        assert found is not None
        return found

    async def add(self, name: str, *, days: float) -> Path:
        """An adapter that was used so long ago."""
        path = await self.files.fetch(await self.trained(name))
        return used(path, days)

    async def look(self, then: Callable[[], None] = lambda: None) -> None:
        """Tidy. `then` is called when it is asked which adapters are under an alias."""

        async def named() -> set[Path]:
            self.asked += 1
            then()
            return self.named

        await self.files.tidy(lambda: self.in_use, named)

    async def tidy(self, then: Callable[[], None] = lambda: None) -> None:
        """Look for as long as it takes until something may be deleted."""
        for _ in range(int(QUIET_SECONDS / TIDY_SECONDS)):
            await self.look()
            self.clock.now += TIDY_SECONDS
        await self.look(then)


def used(path: Path, days: float) -> Path:
    at = path.stat().st_mtime_ns - int(days * DAY * 1e9)
    os.utime(path, ns=(at, at))
    return path


@pytest.fixture
def disk(tmp_path: Path, objects: FakeStore, clock: Clock) -> Disk:
    return Disk(tmp_path / "adapters", objects, clock)


async def five(disk: Disk) -> list[Path]:
    """Adapters, the least recently used first; one more than two too many are there."""
    return [await disk.add(str(number), days=10 - number) for number in range(5)]


async def test_the_least_recently_used_are_deleted_beyond_the_limit(disk: Disk) -> None:
    paths = await five(disk)

    await disk.tidy()

    assert [path.exists() for path in paths] == [False, False, True, True, True]
    assert len(list(disk.folder.iterdir())) == MOST, "no empty folder of a job is left"


async def test_what_nobody_has_used_for_long_is_deleted(disk: Disk) -> None:
    old, new = await disk.add("old", days=31), await disk.add("new", days=29)

    await disk.tidy()

    assert (old.exists(), new.exists()) == (False, True)


async def test_what_is_in_use_or_under_an_alias_stays_and_does_not_count(disk: Disk) -> None:
    paths = await five(disk)
    used(paths[1], 400)
    disk.in_use, disk.named = {paths[0]}, {paths[1]}

    await disk.tidy()

    assert all(path.exists() for path in paths)


async def test_nothing_is_deleted_before_it_was_quiet_for_long_enough(disk: Disk) -> None:
    paths = await five(disk)
    for _ in range(int(QUIET_SECONDS / TIDY_SECONDS)):
        await disk.look()
        disk.clock.now += TIDY_SECONDS
        assert all(path.exists() for path in paths)


async def test_what_another_replica_uses_stays_whatever_its_clock_says(disk: Disk) -> None:
    paths = await five(disk)
    for second in range(20):
        for path in paths:
            os.utime(path, ns=(second, second))  # it touches what it has loaded, and its clock is not ours
        await disk.look()
        disk.clock.now += TIDY_SECONDS

    assert all(path.exists() for path in paths)


async def test_what_another_replica_begins_to_use_in_the_last_moment_stays(disk: Disk) -> None:
    paths = await five(disk)

    await disk.tidy(then=lambda: os.utime(paths[0]))

    assert [path.exists() for path in paths] == [True, False, True, True, True]
    assert sorted(item.name for item in paths[0].parent.iterdir()) == [paths[0].name]


async def test_while_the_store_is_away_nothing_is_deleted(disk: Disk) -> None:
    paths = await five(disk)

    def away() -> None:
        raise StoreUnavailable("a test said so")

    with pytest.raises(StoreUnavailable):
        await disk.tidy(then=away)

    assert all(path.exists() for path in paths)


async def test_the_store_is_not_asked_while_nothing_is_too_much(disk: Disk) -> None:
    await disk.add("one", days=1)
    disk.objects.calls.clear()

    await disk.tidy()

    assert (disk.asked, disk.objects.calls) == (0, [])


async def test_what_was_deleted_is_downloaded_again(disk: Disk) -> None:
    [path, *_] = await five(disk)
    await disk.tidy()
    assert not path.exists()

    assert await disk.files.fetch(await disk.trained("0")) == path
    assert sorted(file.name for file in path.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]


async def test_what_killed_downloads_have_left_is_deleted_and_a_download_under_way_is_not(disk: Disk) -> None:
    path = await disk.add("one", days=1)
    left, under_way = path.parent / ".part-left", path.parent / ".part-running"
    for folder in (left, under_way):
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"half")
    for second in range(int(QUIET_SECONDS / TIDY_SECONDS) + 1):
        os.utime(under_way / "adapter_model.safetensors", ns=(second, 2**62 + second))
        await disk.look()
        disk.clock.now += TIDY_SECONDS

    assert (left.exists(), under_way.exists(), path.exists()) == (False, True, True)


async def test_what_is_not_ours_is_left_alone(disk: Disk) -> None:
    await five(disk)
    foreign = [disk.folder / "notes", disk.folder / job_id("0") / "mine", disk.folder / "job" / ("a" * 64)]
    for folder in foreign:
        folder.mkdir(parents=True)
        os.utime(folder, ns=(1, 1))
    link = disk.folder / job_id("linked")
    link.symlink_to(disk.folder / "job")

    await disk.tidy()

    assert all(folder.is_dir() for folder in (*foreign, link))


async def test_there_may_be_no_folder_yet(disk: Disk) -> None:
    await disk.tidy()


async def test_the_service_keeps_what_is_loaded_or_under_an_alias(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    retention = {"adapters": 1, "adapter_days": 0.0}
    async with running_service(tmp_path, objects, clock, vllm={"max_loras": 1}, retention=retention) as service:
        models = [await add_trained(objects, f"job {number}") for number in range(8)]
        for alias in ("support", "support", "sales"):  # the last of them has a previous model
            model = models.pop()
            assert (await service.http.post(f"/deployments/{alias}", json={"model": model})).status_code == 200
        for model in models:
            assert (await service.chat(model)).status_code == 200

        await look(service)

        there = {path.parent.name for path in tmp_path.glob("*/*")}
        aliased = {job_id(f"job {number}") for number in (7, 6, 5)}
        assert len(service.vllm.adapters) == 4
        assert there == aliased | {Path(path).parent.name for path in service.vllm.adapters.values()}
        for name in ("support", "sales", *models):
            assert (await service.chat(name)).status_code == 200


async def test_nothing_is_deleted_while_an_alias_cannot_be_read(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", -1.0)
    retention = {"adapters": 1, "adapter_days": 0.0}
    async with running_service(tmp_path, objects, clock, vllm={"max_loras": 1}, retention=retention) as service:
        for number in range(6):
            await service.chat(await add_trained(objects, f"job {number}"))
        objects.add("deployments/broken.json", b"{")

        with pytest.raises(Exception, match="broken"):
            await look(service)

        assert len(list(tmp_path.glob("*/*"))) == 6


async def look(service: ServiceUnderTest) -> None:
    adapters = service.work._adapters
    named: Callable[[], Awaitable[Any]] = adapters._under_an_alias
    await adapters._files.tidy(adapters._in_use, named)


ages = st.dictionaries(st.integers(), st.floats(0, 100), max_size=20)


@given(ages, st.sets(st.integers()), st.integers(1, 10), st.floats(0, 100))
def test_the_policy_gives_up_the_oldest_and_nothing_that_is_needed(
    ages: dict[int, float], needed: set[int], most: int, seconds: float
) -> None:
    gone = given_up(ages, needed, most=most, seconds=seconds)

    left = [ages[adapter] for adapter in ages if adapter not in gone and adapter not in needed]
    assert not set(gone) & needed
    assert len(left) <= most and all(age <= seconds for age in left)
    assert [ages[adapter] for adapter in gone] == sorted((ages[adapter] for adapter in gone), reverse=True)
    assert not gone or not left or ages[gone[-1]] >= max(left)
    assert not gone or len(left) == most or ages[gone[-1]] > seconds
