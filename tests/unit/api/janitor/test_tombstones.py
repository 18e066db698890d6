"""What a tombstone names is deleted, whatever happens on the way, and nothing else ever is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.api.janitor.tombstones import Tombstones, may_name
from shared.errors import StoreUnavailable
from shared.stages.ledger import tombstone_key
from shared.store.folders import find_folder
from tests.support.scrape import scrape
from tests.unit.api.janitor.world import World, certain, folder, job_id

JOB = job_id(1)
RESUME = f"jobs/{JOB}/trainer/attempt-1/resume/step-10/"


@pytest.fixture
def world() -> World:
    return World()


async def test_what_is_below_the_prefix_goes_and_then_the_tombstone(world: World) -> None:
    keys = world.attempt(JOB, "trainer", 1, "resume/step-10/manifest.json", "resume/step-10/optimizer.pt")
    others = world.attempt(JOB, "trainer", 1, "resume/step-100/manifest.json", "resume/step-1", "adapter/manifest.json")
    stone = world.bury(RESUME)
    before = await scrape()
    await world.tombstones.carry_out(certain)
    assert world.there(*keys, *others, stone) == others
    grown = (await scrape()).since(before)
    assert grown("tunestream_janitor_deleted_total", kind="checkpoints") == 2
    assert grown("tunestream_janitor_deleted_bytes_total", kind="checkpoints") == 10


async def test_a_reader_never_sees_half_a_folder_wherever_the_janitor_dies(world: World) -> None:
    names = ("manifest.json", "adapter.safetensors", "optimizer.pt", "deep/manifest.json", "deep/x")
    calls = 0
    for dies_at in range(1, 20):
        keys = world.attempt(JOB, "trainer", 1, *(f"resume/step-10/{name}" for name in names))
        stone = world.bury(RESUME)

        async def dying(at: int = dies_at) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                raise RuntimeError("killed")

        calls = 0
        try:
            await Tombstones(world.store).carry_out(dying)
        except RuntimeError:
            left = world.there(*keys)
            folder = await find_folder(world.store, "tunestream", RESUME)
            assert folder is None or len(left) == len(keys)
            assert world.there(stone), "as long as anything is left, the tombstone says so"
        await Tombstones(world.store).carry_out(certain)
        assert world.there(*keys, stone) == []


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/resume/"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/resume/step-1"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/resume/../"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/checkpoints/step-1/"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-x/resume/step-1/"),
        ("checkpoints", f"jobs/{JOB}/evaluator/attempt-1/resume/step-1/"),
        ("checkpoints", f"x/jobs/{JOB}/trainer/attempt-1/resume/step-1/"),
        ("checkpoints", f"jobs/{JOB}/trainer/attempt-1/resume/step-1/../../"),
        ("checkpoints", "jobs/../trainer/attempt-1/resume/step-1/"),
        ("checkpoints", "jobs/"),
        ("checkpoints", ""),
        ("checkpoints", "deployments/"),
        ("adapters", RESUME),
        ("files", RESUME),
        ("files", "files/"),
        ("files", "files/file-abc/"),
        ("files", "files/file-one"),
        ("uploads", "uploads/"),
        ("uploads", f"uploads/upload_{'a' * 24}/parts/"),
        ("uploads", f"uploads/upload_{'a' * 24}/"),
        ("models", RESUME),
        ("models", f"jobs/{JOB}/trainer/attempt-1/"),
        ("models", f"jobs/{JOB}/trainer/attempt-1/checkpoints/"),
        ("models", f"jobs/{JOB}/trainer/attempt-1/checkpoints/../"),
        ("models", f"jobs/{JOB}/trainer/attempt-1/checkpoints/step-1/../../"),
        ("models", f"jobs/{JOB}/trainer/attempt-1/adapter"),
        ("models", f"jobs/{JOB}/trainer/attempt-1/metrics/"),
        ("models", f"jobs/{JOB}/evaluator/attempt-1/adapter/"),
        ("models", "jobs/../trainer/attempt-1/adapter/"),
        ("models", f"jobs/{JOB}/"),
        ("models", "deployments/"),
        ("", RESUME),
    ],
)
async def test_a_tombstone_that_names_anything_else_is_refused_and_stays(
    world: World, kind: str, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = world.attempt(JOB, "trainer", 1, "resume/step-1/manifest.json", "checkpoints/step-1/x", "adapter/x")
    world.store.add("deployments/support.json", b"{}")
    good = world.attempt(JOB, "trainer", 1, "resume/step-10/manifest.json")
    stones = [world.bury(prefix, kind), world.bury(RESUME, "checkpoints", "zz")]
    for _ in range(3):
        await world.tombstones.carry_out(certain)
    assert world.there(*keys, "deployments/support.json", *good, *stones) == [
        *keys,
        "deployments/support.json",
        stones[0],
    ], "the good one behind it is carried out"
    assert [line.levelname for line in caplog.records if "refused" in line.message] == ["ERROR"]
    assert (await scrape()).value("tunestream_janitor_tombstones_refused") == 1
    del world.store.held[stones[0]]
    await world.tombstones.carry_out(certain)
    assert (await scrape()).value("tunestream_janitor_tombstones_refused") == 0


@pytest.mark.parametrize("below", ["adapter", "checkpoints/step-10"])
async def test_a_deleted_model_loses_its_bytes_and_its_tombstone_stays(world: World, below: str) -> None:
    """The result of its training still tells of it, and must not bring it back."""
    keys = world.attempt(JOB, "trainer", 1, f"{below}/manifest.json", f"{below}/adapter_model.safetensors")
    others = world.attempt(
        JOB, "trainer", 1, "metrics.jsonl", "checkpoints/step-1/manifest.json", "adapters/x", "results.csv"
    )
    others += world.attempt(JOB, "trainer", 2, f"{below}/manifest.json")
    others += world.attempt(JOB, "evaluator", 1, "report.json")
    stone = world.bury(f"jobs/{JOB}/trainer/attempt-1/{below}/", "models", JOB)
    before = await scrape()
    for _ in range(3):
        await world.tombstones.carry_out(certain)
    assert world.there(*keys, *others, stone) == [*others, stone]
    assert (await scrape()).since(before)("tunestream_janitor_deleted_total", kind="models") == 2
    calls = len(world.store.calls)
    await world.tombstones.carry_out(certain)
    assert world.store.calls[calls:] == [("page", "deleted/"), ("page", "deleted/")], "it is carried out once"
    await Tombstones(world.store).carry_out(certain)
    assert world.there(*others, stone) == [*others, stone]


async def test_the_sweep_goes_on_where_the_adapter_of_a_job_was_deleted(world: World) -> None:
    job = world.ended(1, trained={"adapter": folder(f"jobs/{job_id(1)}/trainer/attempt-1/adapter/")})
    keys = world.attempt(job, "trainer", 1, "adapter/manifest.json", "metrics.jsonl")
    useless = world.attempt(job, "trainer", 2, "adapter/manifest.json")
    world.bury(f"jobs/{job}/trainer/attempt-1/adapter/", "models", job)
    await world.tombstones.carry_out(certain)
    world.days(30)
    await world.sweep()
    assert world.there(*keys, *useless) == [keys[1]]
    assert (await scrape()).value("tunestream_janitor_refused") == 0


@given(st.text(max_size=80), st.sampled_from(["checkpoints", "models", "jobs", "x", "files", "uploads"]))
def test_no_text_leads_out_of_the_folders_that_a_kind_may_name(tail: str, kind: str) -> None:
    for prefix in (tail, f"files/{tail}/", f"uploads/{tail}/parts/"):
        for name in (tail, tail.removeprefix("file-")):
            if may_name(kind, prefix, name) and kind in ("files", "uploads"):
                assert prefix in (f"files/{name}/", f"uploads/{name}/parts/") and "/" not in name and "." not in name
    for prefix in (tail, f"jobs/{JOB}/trainer/{tail}", f"jobs/{JOB}/trainer/attempt-1/resume/{tail}/"):
        if may_name(kind, prefix):
            assert kind in ("checkpoints", "models"), "the others name only what they are called after"
            assert prefix.startswith(f"jobs/{JOB}/trainer/attempt-") and prefix.count("/") in (5, 6)
            assert "/../" not in prefix


async def test_a_tombstone_that_cannot_be_read_stops_nothing(world: World) -> None:
    world.store.add(tombstone_key("checkpoints", "aa"), b"{")
    keys = world.attempt(JOB, "trainer", 1, "resume/step-10/manifest.json")
    world.bury(RESUME)
    await world.tombstones.carry_out(certain)
    assert world.there(*keys, tombstone_key("checkpoints", "aa")) == [tombstone_key("checkpoints", "aa")]


async def test_nothing_is_deleted_while_the_lease_is_in_doubt(world: World) -> None:
    keys = world.attempt(JOB, "trainer", 1, "resume/step-10/manifest.json", "resume/step-10/x")
    world.bury(RESUME)

    async def lost() -> None:
        raise StoreUnavailable("in doubt")

    with pytest.raises(StoreUnavailable):
        await world.tombstones.carry_out(lost)
    assert world.there(*keys) == keys
    assert "delete" not in {name for name, _ in world.store.calls}


async def test_an_idle_look_is_one_call(world: World) -> None:
    for number in range(100):
        world.ended(number)
    await world.tombstones.carry_out(certain)
    assert len(world.store.calls) == 1
