"""What the api asks of the store while nothing happens, and after a restart, does not depend on how many jobs there
are; and what happens is noticed nevertheless."""

from __future__ import annotations

import asyncio

import pytest

from services.api import projection
from services.api.rhythm import LONGEST_PAUSE, Rhythm
from shared.errors import ConfigError
from shared.stages.ledger import pending_key
from shared.tasks import in_background
from tests.support.data.job_history import JobHistory
from tests.support.waiting import until
from tests.unit.api.conftest import Api


@pytest.fixture
async def many(api: Api) -> list[JobHistory]:
    """Jobs that ended long ago, and that the database knows."""
    stories = [JobHistory(number) for number in range(100, 150)]
    for history in stories:
        await history.write_documents(api.objects)
    async with in_background(api.projection.run()):
        await until(lambda: api.projection.complete, "the whole ledger was read")
    api.objects.calls.clear()
    return stories


async def seen(api: Api, history: JobHistory) -> bool:
    """Whether the job is in the database; asking for the job would read the ledger."""
    return history.job_id in await api.database.known()


async def shown(api: Api, history: JobHistory) -> bool:
    return (await api.client.get(f"/jobs/{history.job_id}")).status_code == 200


async def test_while_nothing_happens_the_index_of_open_work_is_all_that_is_asked_for(
    api: Api, many: list[JobHistory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "UNFINISHED_SECONDS", 0.001)
    monkeypatch.setattr(projection, "LOOK_SECONDS", 0.01)
    api.start_discovering_every(0.001)
    await api.restart()
    async with in_background(api.projection.run()):
        await until(lambda: len(api.objects.calls) >= 20, "twenty looks")
        assert set(api.objects.calls) == {("list", "pending/")}


async def test_after_a_restart_nothing_that_is_known_is_read_and_new_work_is_seen_at_once(
    api: Api, many: list[JobHistory]
) -> None:
    new = JobHistory(1)
    await new.accept(api.objects)
    api.objects.add(pending_key("validate", api.clock(), new.job_id), b"{}")
    await api.restart()
    async with in_background(api.projection.run()):
        await until(lambda: seen(api, new), "the new job")
        assert api.projection.complete
        read = {key for name, key in api.objects.calls if name == "get"}
        assert all(key.startswith(f"jobs/{new.job_id}/") for key in read)
        assert ("folders", "jobs/") not in api.objects.calls


async def test_a_new_database_reads_the_whole_ledger_and_one_that_was_cut_short_does_so_again(
    api: Api, many: list[JobHistory]
) -> None:
    await api.delete_database()
    api.objects.available = False
    async with in_background(api.projection.run()):
        await until(api.projection.notes, "the store is away")
    assert not api.projection.complete
    api.objects.available = True
    await api.restart()
    async with in_background(api.projection.run()):
        await until(lambda: api.projection.complete, "the ledger was read")
    assert all([await shown(api, history) for history in many])


@pytest.mark.parametrize("away", [None, 3.0, 40.0])
async def test_without_the_bus_the_whole_ledger_is_listed_but_not_in_the_moment_of_a_start(
    api: Api, many: list[JobHistory], away: float | None
) -> None:
    api.bus_away = away
    await api.restart()
    async with in_background(api.projection.run()):
        await until(lambda: ("list", "pending/") in api.objects.calls, "a look")
        await asyncio.sleep(0)
        assert (("folders", "jobs/") in api.objects.calls) == (away == 40.0)


async def test_once_in_a_while_the_whole_ledger_is_listed(
    api: Api, many: list[JobHistory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "LISTED_SECONDS", 0.05)
    lost = JobHistory(1)
    await lost.write_documents(api.objects)  # it began and ended, and no event came
    await api.restart()
    api.start_discovering_every(0.01)
    async with in_background(api.projection.run()):
        await until(lambda: seen(api, lost), "it is found")


async def test_of_many_jobs_that_wait_few_are_read_at_a_time_and_none_is_forgotten(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    stories = [JobHistory(number) for number in range(20)]
    for history in stories:
        await history.write_documents(api.objects, until="ingest")
    await api.projection.reconcile()
    rounds = 0
    while True:
        api.objects.calls.clear()
        await api.projection._follow_some()
        read = {key.split("/")[1] for _, key in api.objects.calls}
        if not read:
            break
        assert len(read) <= projection.MOST_UNFINISHED
        rounds += 1
    assert rounds == 20 / projection.MOST_UNFINISHED
    # something happens to one of them
    await api.take(stories[7].events[:2])
    await api.projection._follow_some()
    assert {key.split("/")[1] for _, key in api.objects.calls} == {stories[7].job_id}


def test_a_job_of_which_nothing_is_heard_is_looked_at_less_and_less_often() -> None:
    rhythm, now, looks = Rhythm(5.0), 0.0, []
    while now < 3600:
        if rhythm.due({"a"}, now, 4):
            looks.append(now)
            rhythm.looked("a", now)
        now += 5
    assert looks[:4] == [0, 5, 15, 35]
    assert looks[-1] - looks[-2] == LONGEST_PAUSE
    rhythm.heard("a")
    assert rhythm.due({"a", "b"}, now, 4) == ["a", "b"] or rhythm.due({"a", "b"}, now, 4) == ["b", "a"]
    rhythm.due({"b"}, now, 4)
    assert not rhythm._pauses


# --- cancelling -------------------------------------------------------------------------------------------------------


def woken(api: Api, job_id: str) -> set[str]:
    return {key.split("/")[1] for key in api.objects.held if key.startswith("pending/") and key.endswith(job_id)}


async def test_a_cancellation_wakes_every_stage_that_may_have_to_end_the_job(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await api.projection.reconcile()
    answer = await api.client.post(f"/jobs/{history.job_id}/cancel")
    assert answer.status_code == 200
    assert woken(api, history.job_id) == {"trainer", "evaluator", "inference"}
    assert f"pending/trainer/{api.clock():014.3f}-{history.job_id}" in api.objects.held
    await api.client.post(f"/jobs/{history.job_id}/cancel")
    assert woken(api, history.job_id) == {"trainer", "evaluator", "inference"}


async def test_a_job_is_cancelled_although_the_index_may_not_be_written(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await api.projection.reconcile()

    class Forbidden(type(api.objects)):  # type: ignore[misc]
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if key.startswith("pending/") and operation == "create":
                raise ConfigError("denied")

    api.objects = Forbidden(clock=api.clock, disk=api.objects.disk)
    await api.restart()
    assert (await api.client.post(f"/jobs/{history.job_id}/cancel")).status_code == 200
    assert f"jobs/{history.job_id}/control/cancel-1.json" in api.objects.held
