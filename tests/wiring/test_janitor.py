"""The janitor on the real embedded store."""

from __future__ import annotations

import pytest

from services.api.janitor.documents import SWEPT
from services.api.janitor.janitor import Janitor
from services.api.janitor.sweep import Sweep
from services.api.janitor.tombstones import Tombstones
from shared.events import STAGE_NAMES, Tombstone
from shared.settings import RetentionSettings
from shared.stages.ledger import attempt_prefix, job_key, published_key, result_key, tombstone_key
from shared.store import listing
from shared.store.objects import ObjectStore
from shared.tasks import in_background
from tests.support.embedded import Embedded
from tests.support.waiting import until
from tests.unit.api.janitor.world import DAY, job_id, nothing_settled, result


async def job(objects: ObjectStore, number: int, *stages: str) -> str:
    """A job that has gone through `stages` eight days ago; each was decided by the second attempt."""
    made, at = job_id(number), objects.now() - 8 * DAY
    await objects.put(job_key(made), b"{}")
    for stage in stages:
        await objects.put(result_key(made, stage), result(made, stage, attempt=2, at=at).model_dump_json().encode())
        await objects.put(published_key(made, stage), b"{}")
    return made


async def test_it_deletes_what_nobody_needs_and_finds_open_work(
    own_parts: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "PAGE", 7)
    objects = own_parts.objects
    done = await job(objects, 1, *STAGE_NAMES)
    others = [await job(objects, number, *STAGE_NAMES[: number - 10]) for number in range(11, 15)]
    resume = f"{attempt_prefix(done, 'trainer', 2)}resume/step-9/"
    old, new = attempt_prefix(done, "trainer", 1), attempt_prefix(done, "trainer", 2)
    buried = f"{attempt_prefix(others[0], 'trainer', 1)}resume/step-1/"
    for prefix in (resume, f"{old}checkpoints/step-1/", f"{new}adapter/", buried):
        for name in ("manifest.json", *(f"{part}.bin" for part in range(10))):
            await objects.put(prefix + name, b"12345")
    stone = Tombstone(prefix=buried, reason="superseded", at=objects.now()).model_dump_json().encode()
    await objects.create(tombstone_key("checkpoints", "one"), stone)

    sweep = Sweep(objects, RetentionSettings(), datasets="datasets", seconds=3600.0, settled=nothing_settled)
    janitor = Janitor(objects, Tombstones(objects), sweep, owner="test", user="test", seconds=0.1)
    async with in_background(janitor.run()):
        await until(lambda: objects.exists(SWEPT), "the sweep")
    left = {entry.key for entry in await objects.list(f"jobs/{done}/trainer/attempt-")}
    assert left == {f"{new}adapter/{name}" for name in ("manifest.json", *(f"{part}.bin" for part in range(10)))}
    assert await objects.list(buried) == [] and await objects.list("deleted/") == []
    index = {tuple(entry.key.split("/")[1:]) for entry in await objects.list("pending/")}
    found = {(stage, name.partition("-")[2]) for stage, name in index}
    assert {pair for pair in found if pair[1] in others} == set(zip(STAGE_NAMES[1:], others, strict=True))
