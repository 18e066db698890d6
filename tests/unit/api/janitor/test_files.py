"""The janitor deletes files and uploads that are over, and leaves what a job under way reads."""

from __future__ import annotations

import pytest

from services.api.domain.sweeps.documents import Sweep, sweep_key, sweep_result_key
from services.api.domain.sweeps.space import USUAL
from shared.events import Asked, Job, JobSpec, Origin, Reference, StoredFile, Tombstone
from shared.stages.ledger import (
    asked_key,
    file_content_key,
    file_meta_key,
    file_prefix,
    job_key,
    pending_key,
    tombstone_key,
)
from tests.unit.api.janitor.world import DAY, World, certain, job_id

UPLOAD = f"upload_{'a' * 24}"


@pytest.fixture
def world() -> World:
    return World()


def add(world: World, file_id: str, expires_at: float | None = None) -> list[str]:
    """A file. Returns its keys."""
    content = world.store.add(file_content_key(file_id), b"{}")
    file = StoredFile(
        file_id=file_id,
        filename="a",
        purpose="batch",
        created_at=world.clock.now,
        content=content,
        expires_at=expires_at,
    )
    world.store.add(file_meta_key(file_id), file.model_dump_json().encode())
    return [file_content_key(file_id), file_meta_key(file_id)]


def bury(world: World, file_id: str) -> str:
    stone = Tombstone(prefix=file_prefix(file_id), reason="deleted", at=world.clock.now)
    world.store.add(tombstone_key("files", file_id), stone.model_dump_json().encode())
    return tombstone_key("files", file_id)


def manifest(number: int, *files: str) -> Job:
    """A job with these files as its dataset and validation file."""
    references = [
        Reference(bucket="tunestream", key=file_content_key(each), etag="e", size=1, sha256="0") for each in files
    ]
    return Job(
        job_id=job_id(number),
        created_at=0.0,
        dataset=references[0],
        validation_file=references[1] if len(references) > 1 else None,
        spec=JobSpec(),
        base="b",
        model="m",
        alias="a",
        origin=Origin(kind="api"),
        traceparent="",
    )


def open_job(world: World, number: int, *files: str) -> str:
    """A job that is being validated. Returns its entry in the index."""
    world.store.add(job_key(job_id(number)), manifest(number, *files).model_dump_json().encode())
    entry = pending_key("validate", world.clock.now, job_id(number))
    world.store.add(entry, b"{}")
    return entry


async def carry_out(world: World) -> None:
    world.clock.now += 61
    await world.tombstones.carry_out(certain)


async def test_a_deleted_file_goes_and_its_tombstone_after_it(world: World) -> None:
    keys, others = add(world, "file-one"), add(world, "file-one1")
    stone = bury(world, "file-one")
    await carry_out(world)
    assert world.there(*keys, stone, *others) == others


async def test_a_request_that_has_just_found_a_file_may_make_a_job_of_it(world: World) -> None:
    keys = add(world, "file-one")
    stone = bury(world, "file-one")
    await world.tombstones.carry_out(certain)
    assert world.there(*keys, stone) == [*keys, stone]


async def test_a_file_stays_while_a_job_under_way_reads_it(world: World) -> None:
    data, valid = add(world, "file-data"), add(world, "file-valid")
    asked = add(world, "file-asked")
    stones = [bury(world, each) for each in ("file-data", "file-valid", "file-asked")]
    entry = open_job(world, 1, "file-data", "file-valid")
    request = Asked(job=manifest(2, "file-asked"), key_id="k", request="r")
    world.store.add(asked_key(job_id(2)), request.model_dump_json().encode())
    for _ in range(3):
        await carry_out(world)
    assert world.there(*data, *valid, *asked, *stones) == [*data, *valid, *asked, *stones]
    del world.store.held[entry]
    await carry_out(world)
    assert world.there(*data, *valid, *asked, *stones) == [*asked, stones[2]]
    made = open_job(world, 2, "file-asked")
    del world.store.held[asked_key(job_id(2))]
    await carry_out(world)
    assert world.there(*asked) == asked
    del world.store.held[made]
    await carry_out(world)
    assert world.there(*asked, *stones) == []


async def test_the_files_of_a_sweep_stay_until_it_is_over_because_its_next_trials_read_them(world: World) -> None:
    data, valid = add(world, "file-data"), add(world, "file-valid")
    stones = [bury(world, each) for each in ("file-data", "file-valid")]
    job = manifest(1, "file-data", "file-valid")
    sweep = Sweep(
        sweep_id="sweep-a",
        created_at=0.0,
        key_id="k",
        request="r",
        dataset=job.dataset,
        filename="a.jsonl",
        validation_file=job.validation_file,
        base="b",
        organization="o",
        spec=JobSpec(),
        space=USUAL,
        trials=1,
        parallel=1,
        traceparent="",
    )
    world.store.add(sweep_key("sweep-a"), sweep.model_dump_json().encode())
    await carry_out(world)
    assert world.there(*data, *valid, *stones) == [*data, *valid, *stones]
    world.store.add(sweep_result_key("sweep-a"), b"{}")
    await carry_out(world)
    assert world.there(*data, *valid, *stones) == []


async def test_a_request_that_was_handled_long_ago_holds_no_file(world: World) -> None:
    keys = add(world, "file-one")
    request = Asked(job=manifest(1, "file-one"), key_id="k", request="r")
    world.store.add(asked_key(job_id(1)), request.model_dump_json().encode())
    world.store.add(job_key(job_id(1)), request.job.model_dump_json().encode())
    world.days(2)
    bury(world, "file-one")
    await carry_out(world)
    assert world.there(*keys) == []


async def test_nothing_is_deleted_while_nobody_knows_what_a_job_reads(world: World) -> None:
    keys, late = add(world, "file-one"), add(world, "file-late", expires_at=world.clock.now + 3600)
    stone, entry = bury(world, "file-one"), open_job(world, 1, "file-one")
    world.store.add(job_key(job_id(1)), b"{")
    await carry_out(world)
    await world.sweep()
    assert world.there(*keys, *late, stone) == [*keys, *late, stone]
    del world.store.held[entry]
    await carry_out(world)
    await world.sweep()
    assert world.there(*keys, *late, stone) == []


async def test_the_tombstone_of_a_result_file_stays(world: World) -> None:
    """Its content is an artifact of the job, and nothing but the tombstone says that it is deleted."""
    stone = bury(world, f"file-result-{job_id(1).removeprefix('ftjob-')}")
    world.store.calls.clear()
    for _ in range(3):
        await carry_out(world)
    assert world.there(stone) == [stone]
    assert {name for name, _ in world.store.calls} == {"page"}, "and it is not even read"


async def test_the_parts_of_an_upload_go_and_what_it_became_stays(world: World) -> None:
    parts = [f"uploads/{UPLOAD}/parts/part_{each}/{name}" for each in "ab" for name in ("content", "part.json")]
    stays = [f"uploads/{UPLOAD}/upload.json", f"uploads/{UPLOAD}/decision.json"]
    for key in [*parts, *stays]:
        world.store.add(key, b"{}")
    stone = world.bury(f"uploads/{UPLOAD}/parts/", "uploads", UPLOAD)
    await world.tombstones.carry_out(certain)
    assert world.there(*parts, *stays, stone) == stays


# --- the sweep ----------------------------------------------------------------------------------------------------


async def test_a_file_whose_time_is_over_goes_unless_a_job_reads_it(world: World) -> None:
    soon = world.clock.now + 3600
    over, used = add(world, "file-over", soon), add(world, "file-used", soon)
    later, ever = add(world, "file-later", soon + 10 * DAY), add(world, "file-ever")
    entry = open_job(world, 1, "file-used")
    await world.sweep()
    assert world.there(*over, *used, *later, *ever) == [*used, *later, *ever]
    del world.store.held[entry]
    await world.sweep()
    assert world.there(*used, *later, *ever) == [*later, *ever]


async def test_a_request_that_has_found_a_file_at_its_last_moment_may_make_a_job_of_it(world: World) -> None:
    keys = add(world, "file-one", expires_at=world.clock.now + 21_600.0 - 1)
    await world.sweep()
    assert world.there(*keys) == keys


async def test_content_that_never_became_a_file_goes_after_a_day(world: World) -> None:
    world.store.add(file_content_key("file-orphan"), b"{}")
    whole = add(world, "file-whole")
    await world.sweep()
    assert world.there(file_content_key("file-orphan"))
    world.days(1)
    await world.sweep()
    assert world.there(file_content_key("file-orphan"), *whole) == whole


async def test_an_upload_goes_a_day_after_its_last_part(world: World) -> None:
    keys = [f"uploads/{UPLOAD}/upload.json", f"uploads/{UPLOAD}/parts/part_a/content"]
    for key in keys:
        world.store.add(key, b"{}")
    await world.sweep()
    assert world.there(*keys) == keys
    world.days(1)
    young = f"uploads/upload_{'b' * 24}/upload.json"
    world.store.add(young, b"{}")
    await world.sweep()
    assert world.there(*keys, young) == [young]


async def test_the_document_of_a_file_is_read_once(world: World) -> None:
    for number in range(20):
        add(world, f"file-{number}")
    for number in range(3):
        world.store.calls.clear()
        world.clock.now += 21_600.0
        await world.sweeper.run_if_due(certain)
        reads = [key for name, key in world.store.calls if name == "get" and key.startswith("files/")]
        assert len(reads) == (20 if number == 0 else 0)
