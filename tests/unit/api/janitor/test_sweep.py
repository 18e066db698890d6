"""The sweep: the index of open work is whole again, what nobody needs goes, and what somebody needs stays."""

from __future__ import annotations

import json

import pytest

from shared import control
from shared.errors import StoreRefused, StoreUnavailable
from shared.events import STAGE_NAMES
from shared.stages.ledger import job_key, result_key
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.unit.api.janitor.world import T0, World, certain, folder, job_id, result


@pytest.fixture
def world() -> World:
    return World()


# --- the index of open work -----------------------------------------------------------------------------------------


async def test_a_job_whose_next_stage_was_never_told_gets_its_entry_at_the_time_when_it_was_asked(world: World) -> None:
    job = job_id(1)
    world.job(1, result(job, "ingest", at=T0 - 50), result(job, "validate", at=T0 - 20))
    before = await scrape()
    await world.sweep()
    assert world.pending() == [f"pending/trainer/{T0 - 20:014.3f}-{job}"]
    assert (await scrape()).since(before)("tunestream_janitor_index_entries_total") == 1
    await world.sweep()
    assert len(world.pending()) == 1, "an entry that is there is not written again"


async def test_every_stage_that_has_work_finds_it_in_the_index_and_no_other(world: World) -> None:
    for number, stage in enumerate(STAGE_NAMES, start=1):
        done = STAGE_NAMES[: STAGE_NAMES.index(stage) + 1]
        world.job(number, *(result(job_id(number), each) for each in done))
    for number, stage in enumerate(STAGE_NAMES, start=11):
        world.failed(number, stage)
    world.store.add(job_key(job_id(21)), b"{}")  # ingest has not decided it
    world.store.add(result_key(job_id(22), "ingest"), result(job_id(22), "ingest").model_dump_json().encode())
    await world.sweep()
    found = {tuple(key.split("/")[1:]) for key in world.pending()}
    wanted = zip(STAGE_NAMES[1:], range(1, 5), strict=True)
    assert {(stage, name.partition("-")[2]) for stage, name in found} == {(s, job_id(n)) for s, n in wanted}


async def test_a_result_whose_event_is_not_published_is_work_of_its_own_stage(world: World) -> None:
    job = job_id(1)
    world.job(1, result(job, "ingest"), result(job, "validate"), unpublished=["validate"])
    world.failed(2)
    del world.store.held[f"jobs/{job_id(2)}/trainer/published.json"]
    world.store.add(f"pending/trainer/{T0:014.3f}-{job}", b"{}")
    await world.sweep()
    assert {tuple(key.split("/")[1::2]) and key.split("/")[1] for key in world.pending()} == {"validate", "trainer"}
    assert len(world.pending()) == 3


async def test_jobs_that_the_projection_knows_to_have_ended_are_not_read(world: World) -> None:
    for number in range(30):
        world.failed(number)
        world.settled.add(job_id(number))
    await world.sweep()
    assert [call for call in world.store.calls if call[0] == "get" and "/trainer/" in call[1]] == []


async def test_an_index_that_was_lost_is_rebuilt_although_nothing_has_changed(world: World) -> None:
    job = job_id(1)
    world.job(1, result(job, "ingest"))
    await world.sweep()
    for key in world.pending():
        del world.store.held[key]
    world.days(30)
    await world.sweep()
    assert len(world.pending()) == 1


# --- the retention policy -------------------------------------------------------------------------------------------


async def test_what_decided_nothing_goes_after_its_days_and_the_rest_stays(world: World) -> None:
    job = world.ended(1, trained={"adapter": folder(f"jobs/{job_id(1)}/trainer/attempt-2/adapter/")}, attempt=2)
    old = world.attempt(job, "trainer", 1, "adapter/manifest.json", "adapter/weights")
    kept = world.attempt(job, "trainer", 2, "adapter/manifest.json", "adapter/weights", "log.txt")
    await world.sweep()
    assert world.there(*old, *kept) == [*old, *kept]
    world.days(7)
    before = await scrape()
    await world.sweep()
    assert world.there(*old, *kept) == kept
    assert (await scrape()).since(before)("tunestream_janitor_deleted_total", kind="attempts") == 2
    assert json.loads(world.store.held["janitor/swept.json"].data)["at"] == world.clock.now


async def test_a_paused_job_keeps_everything_however_long_it_rests(world: World) -> None:
    job = world.job(1, *(result(job_id(1), stage) for stage in STAGE_NAMES[:2]))
    keys = [
        *world.attempt(job, "trainer", 1, "resume/step-1/manifest.json", "checkpoints/step-1/manifest.json"),
        *world.attempt(job, "trainer", 2, "resume/step-9/manifest.json"),
    ]
    await control.pause(world.store, job)
    await world.sweep(attempt_days=1, report_days=1, inbox_days=1)
    [entry] = world.pending()
    assert entry.startswith("pending/trainer/") and entry.endswith(job)
    for _ in range(3):
        world.days(400)
        await world.sweep()
    assert world.there(*keys) == keys
    assert world.pending() == [entry]
    assert (await control.read(world.store, job)).paused


async def test_what_resuming_needed_goes_with_the_next_sweep_manifest_first(world: World) -> None:
    job = job_id(1)
    world.job(1, *(result(job, stage) for stage in STAGE_NAMES[:3]))
    keys = world.attempt(job, "trainer", 1, "resume/step-1/adapter", "resume/step-1/manifest.json", "adapter/x")
    await world.sweep()
    assert world.there(*keys) == keys[2:]
    assert [key for name, key in world.store.calls if name == "delete"] == [keys[1], keys[0]]


async def test_a_parent_keeps_everything_while_a_retry_is_under_way_and_then_what_it_refers_to(world: World) -> None:
    parent, child, grandchild = world.failed(1, attempt=4), job_id(2), job_id(3)
    steps = [world.attempt(parent, "trainer", n, f"checkpoints/step-{n}/manifest.json")[0] for n in (1, 2, 3)]
    world.days(8)
    world.retry(parent, child)  # ingest has not even made its job
    await world.sweep()
    assert world.there(*steps) == steps
    lists = {"checkpoints": [{"step": 2, "prefix": steps[1].removesuffix("manifest.json")}]}
    world.retry(child, grandchild)
    results = (result(child, "ingest"), result(child, "trainer", "failed", 1, **lists))
    world.job(2, *results)
    await world.sweep()
    assert world.there(*steps) == steps, "the retry of the retry is under way"
    lists = {"checkpoints": [{"step": 3, "prefix": steps[2].removesuffix("manifest.json")}]}
    world.job(3, *(result(grandchild, s, at=world.clock.now, **(lists if s == "trainer" else {})) for s in STAGE_NAMES))
    await world.sweep()
    assert world.there(*steps) == steps[1:]
    world.days(400)
    for _ in range(3):
        await world.sweep()
    assert world.there(*steps) == steps[1:], "however old"


async def test_a_retry_that_is_asked_for_during_the_sweep_is_not_robbed(world: World) -> None:
    parent = world.failed(1)
    keys = world.attempt(parent, "trainer", 1, "checkpoints/step-1/manifest.json")
    world.days(8)

    class Asked(type(world.store)):  # type: ignore[misc]
        async def after(self, operation: str, key: str) -> None:
            if (operation, key) == ("get", result_key(parent, "trainer")):
                world.retry(parent, job_id(2))

    world.store = Asked(clock=world.clock, disk=world.store.disk)
    await world.sweep()
    assert world.there(*keys) == keys


async def test_a_result_that_cannot_be_read_keeps_its_job_and_its_parents(world: World) -> None:
    parent, child = world.failed(1), world.failed(2)
    world.retry(parent, child)
    keys = [world.attempt(job, "trainer", 1, "x")[0] for job in (parent, child)]
    other = world.attempt(world.failed(3), "trainer", 1, "x")
    world.store.add(result_key(child, "trainer"), b'{"of": "a later version"}')
    world.days(8)
    await world.sweep()
    assert world.there(*keys, *other) == keys


async def test_reports_stay_whatever_the_project_of_the_alias_is(world: World) -> None:
    jobs = [world.ended(number) for number in (1, 2, 3)]
    reports = [world.attempt(job, "evaluator", 1, "report.html")[0] for job in jobs]
    world.deploy("support", jobs[0])
    world.deploy("support", jobs[1], project="one")
    world.days(40)
    await world.sweep(report_days=30)
    assert world.there(*reports) == reports[:2]


async def test_reports_go_only_when_a_setting_says_so_and_no_alias_names_the_model(world: World) -> None:
    jobs = [world.ended(number) for number in (1, 2, 3)]
    reports = [world.attempt(job, "evaluator", 1, "report.html")[0] for job in jobs]
    world.deploy("support", jobs[1], jobs[0])
    world.days(40)
    await world.sweep()
    assert world.there(*reports) == reports
    await world.sweep(report_days=30)
    assert world.there(*reports) == reports[:2], "that of the current and of an earlier version stay"
    world.store.add("deployments/support.json", b"{")
    await world.sweep(report_days=20)
    assert world.there(*reports) == reports[:2], "nobody knows what the alias names"
    del world.store.held["deployments/support.json"]
    await world.sweep()
    assert world.there(*reports) == []


# --- cost, restarts, failures ---------------------------------------------------------------------------------------


async def test_a_sweep_over_jobs_that_ended_long_ago_lists_them_and_reads_none(world: World) -> None:
    for number in range(200):
        world.attempt(world.ended(number), "trainer", 1, "adapter/manifest.json")
    world.days(8)
    await world.sweep()
    world.store.calls.clear()
    await world.sweep()
    jobs = [call for call in world.store.calls if call[1].startswith("jobs/")]
    assert jobs and {name for name, _ in jobs} == {"page"}
    assert len(jobs) <= 200 * 12 / 1000 + 2


async def test_a_restart_does_not_sweep_again_and_asks_once(world: World) -> None:
    await world.sweep()
    world.start()
    world.store.calls.clear()
    for _ in range(5):
        await world.sweeper.run_if_due(certain)
    assert world.store.calls == [("get", "janitor/swept.json")]
    world.clock.now += 21_600
    await world.sweeper.run_if_due(certain)
    assert ("page", "jobs/") in world.store.calls


async def test_a_walk_holds_one_page_and_misses_no_job(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeStore, "page_size", 7)
    for number in range(20):
        world.job(number, result(job_id(number), "ingest"))
    await world.sweep()
    assert len(world.pending()) == 20


@pytest.mark.parametrize("dies_at", range(0, 60, 3))
async def test_a_sweep_that_dies_at_any_call_is_made_up_for_by_the_next(world: World, dies_at: int) -> None:
    job = world.ended(1, attempt=2)
    keys = world.attempt(job, "trainer", 1, "a/manifest.json", "a/x", "b")
    world.job(2, result(job_id(2), "ingest"))
    world.days(8)

    class Dying(type(world.store)):  # type: ignore[misc]
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if len(self.calls) > dies_at:
                raise StoreUnavailable("away")

    whole, world.store = world.store, Dying(clock=world.clock, disk=world.store.disk)
    try:
        await world.sweep()
    except StoreUnavailable:
        assert not world.there("janitor/swept.json")
    world.store = whole
    await world.sweep()
    assert world.there(*keys) == [] and len(world.pending()) == 1


async def test_one_job_that_the_store_refuses_does_not_stop_the_others(world: World) -> None:
    first, second = (world.ended(number, attempt=2) for number in (1, 2))
    keys = [world.attempt(job, "trainer", 1, "x")[0] for job in (first, second)]
    world.days(8)
    world.store.faults["get", result_key(first, "trainer")] = StoreRefused("InvalidObjectState", "archived")
    await world.sweep()
    assert world.there(*keys) == [keys[0]]
    world.store.faults.clear()
    await world.sweep()
    assert world.there(*keys) == []


async def test_what_is_no_job_is_left_alone(world: World) -> None:
    world.store.add("jobs/../x/trainer/attempt-1/resume/x", b"")
    world.store.add("jobs/loose", b"")
    world.attempt(job_id(1), "trainer", 1, "resume/step-1/x")  # no manifest, no result
    keys = set(world.store.held)
    await world.sweep(attempt_days=0)
    assert keys <= set(world.store.held) and world.pending() == []


async def test_uploads_that_nobody_completed_are_aborted_after_a_day(world: World) -> None:
    world.store.disk.uploads |= {"old": world.clock.now, "new": world.clock.now + 6 * 3600}
    world.days(0.9)
    await world.sweep()
    assert list(world.store.disk.uploads) == ["new"]
