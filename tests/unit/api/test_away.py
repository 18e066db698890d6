"""While Kafka or the object store is away the api shows what it can, says what is away, and goes on by itself."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from services.api import projection
from services.api.resources import dependencies
from shared.errors import ConfigError, InputError, StoreRefused, StoreUnavailable, TransientError
from shared.events import JobProgress
from shared.tasks import in_background
from tests.support.data.job_history import T0, JobHistory, delivery
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.api.conftest import Api, error_of

HUB = "the hub does not answer"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "UNFINISHED_SECONDS", 0.01)


async def shown(api: Api, history: JobHistory) -> Any:
    return await api.get(f"/jobs/{history.job_id}")


async def said(api: Api, history: JobHistory) -> list[str]:
    told = await api.get(f"/jobs/{history.job_id}/events", order="asc", limit=100)
    return [event["message"].split(":")[0] for event in told["data"]]


# --- Kafka --------------------------------------------------------------------------------------------------------


async def test_with_kafka_gone_for_a_whole_job_the_api_shows_it_from_the_drop_to_the_served_model(api: Api) -> None:
    history = JobHistory()
    api.clock.now = T0 + 41  # while it happens
    api.bus_away = 40.0
    api.start_discovering_every(0.01)
    async with in_background(api.projection.run()):

        async def is_shown(status: str, **stages: str) -> None:
            async def there() -> bool:
                for job in (await api.get("/jobs"))["data"]:
                    found = {name: job["stages"][name]["state"] for name in stages}
                    return (job["status"], found) == (status, stages)
                return False

            await until(there, f"{status}, {stages}")

        await history.accept(api.objects)
        await is_shown("validating_files")
        for stage, (event, after) in history.results.items():
            await history.claim(api.objects, stage, expires=api.clock() + 10)
            if stage == "trainer":
                await is_shown("running", validate="completed", trainer="running")
                waits = {"given_back": True, "not_before": api.clock() + 12, "waiting_for": HUB}
                await history.claim(api.objects, stage, waiting_since=api.clock() - 40, **waits)
                await is_shown("running", trainer="waiting")
                assert (await shown(api, history))["waiting_for"] == f"trainer: {HUB}"
                await history.claim(api.objects, stage, attempt=2, expires=api.clock() + 10)
                await is_shown("running", trainer="running")
            await history.finish(api.objects, stage, event, after, "completed")
        await is_shown("succeeded", inference="completed")

    job = await shown(api, history)
    assert (job["fine_tuned_model"], job["deployment"]["alias"]) == (history.model, "support")
    assert [note["code"] for note in job["notes"]] == ["bus_away"]
    assert job["notes"][0]["message"] == "Kafka does not answer: slower, working from the ledger"
    assert job["notes"][0]["seconds"] == 40
    told = await said(api, history)
    assert [line for line in told if line in ("Fine-tuning job started", "trainer waits", "Model deployed")] == [
        "Fine-tuning job started",
        "trainer waits",
        "Model deployed",
    ]


async def test_when_kafka_is_back_nothing_is_told_twice(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await history.claim(api.objects, "trainer", expires=api.clock() + 10)
    await api.projection.reconcile()
    await history.write_documents(api.objects)
    await api.projection.reconcile()
    alone = await said(api, history)
    await api.take(history.events)
    told = await said(api, history)
    assert len(told) == len(set(told))
    assert set(alone) <= set(told)
    assert (await shown(api, history))["notes"] == []


async def test_a_slow_listing_does_not_hold_up_the_jobs_that_are_under_way(api: Api) -> None:
    history = JobHistory()
    await history.accept(api.objects)
    await api.projection.reconcile()
    stuck = asyncio.Event()

    class Slow(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            if operation == "folders":
                await stuck.wait()

    api.objects = Slow(clock=api.clock, disk=api.objects.disk)
    await api.restart()
    await history.finish(api.objects, "ingest", history.uploaded, 1.0, "completed")
    await history.claim(api.objects, "validate", expires=api.clock() + 10)
    async with in_background(api.projection.run()):

        async def running() -> bool:
            return bool((await shown(api, history))["stages"]["validate"]["state"] == "running")

        await until(running, "the claim is shown")
    stuck.set()


# --- the object store -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConfigError("TUNESTREAM_STORE__SECRET_KEY is wrong")])
async def test_while_the_store_is_away_known_jobs_are_shown_with_a_note_and_then_without(
    api: Api, error: Exception
) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await api.projection.reconcile()

    class Failing(FakeStore):
        broken = True

        async def before(self, operation: str, key: str) -> None:
            if self.broken:
                raise error

    failing = api.objects = Failing(clock=api.clock, disk=api.objects.disk)
    await api.restart()
    async with in_background(api.projection.run()) as running:

        async def notes() -> list[str]:
            return [note["message"] for note in (await shown(api, history))["notes"]]

        await until(notes, "a note")
        assert (await shown(api, history))["status"] == "queued"
        assert [job["id"] for job in (await api.get("/jobs"))["data"]] == [history.job_id]
        assert await said(api, history)
        [line] = await notes()
        assert line.startswith("The object store") and line.endswith("this is what was known before")
        assert "SECRET_KEY" not in line, "the settings are nothing for a user of the api"
        await api.take(history.events[:3])  # what Kafka tells is shown meanwhile
        failing.broken = False

        async def none() -> bool:
            return not await notes()

        await until(none, "the note is gone")
        assert not running.done()


async def test_an_api_that_starts_while_the_store_is_away_says_so(
    api: Api, history: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection, "FIRST_ANSWER_SECONDS", 0.0)
    await api.restart()
    assert [note["code"] for note in (await shown(api, history))["notes"]] == ["store_away"]
    await api.projection.reconcile()
    assert (await shown(api, history))["notes"] == []


async def test_an_event_of_an_unknown_job_does_not_hold_up_the_others_while_the_store_is_away(api: Api) -> None:
    history = JobHistory()
    await history.accept(api.objects)
    api.objects.available = False
    await api.take(history.events[:3])
    assert (await api.get("/jobs"))["data"] == []
    api.objects.available = True
    await api.projection.reconcile()
    assert (await shown(api, history))["status"] == "queued"


async def test_an_event_with_an_impossible_job_id_is_a_dead_letter_and_reads_nothing(api: Api) -> None:
    for job_id in ("../deployments", "a/b", "", "x" * 5000, "ftjob-\n"):
        # the event itself would be refused before
        event = JobProgress.model_construct(job_id=job_id, stage="trainer", state="running")
        with pytest.raises(InputError):
            await api.projection.take(event, delivery(event, "ftevent-x", T0))
    assert api.objects.calls == []


async def test_one_object_that_gives_no_answer_does_not_hide_the_other_jobs(api: Api) -> None:
    stories = [JobHistory(number) for number in range(20)]

    class OneStuck(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            if stories[0].job_id in key:
                raise StoreUnavailable("timed out")
            if stories[1].job_id in key:
                raise StoreRefused("InvalidObjectState", "it is archived")

    api.objects = OneStuck(clock=api.clock)
    await api.restart()
    for history in stories:
        api.objects.add(f"jobs/{history.job_id}/job.json", history.job.model_dump_json().encode())
    await api.projection.reconcile()
    page = await api.get("/jobs", limit=100)
    assert {job["id"] for job in page["data"]} == {history.job_id for history in stories[2:]}
    assert page["notes"] == []


# --- clocks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-3600.0, 3600.0])
async def test_this_machines_clock_does_not_matter(api: Api, skew: float, monkeypatch: pytest.MonkeyPatch) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await history.claim(api.objects, "trainer", expires=api.clock() + 10)
    monkeypatch.setattr("time.time", lambda: api.clock() + skew)
    await api.projection.reconcile()
    job = await shown(api, history)
    assert (job["stages"]["trainer"]["state"], job["as_of"]) == ("running", api.clock())
    assert job["stages"]["trainer"]["started_at"] == api.clock()


async def test_an_event_from_a_clock_that_is_fast_is_not_shown_as_the_future(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    event = history.progress("trainer", "started", attempt=1)
    await api.projection.take(event, delivery(event, "ftevent-1", api.clock() + 3600))
    job = await shown(api, history)
    assert job["stages"]["trainer"]["started_at"] == api.clock()
    told = await api.get(f"/jobs/{history.job_id}/events")
    assert all(event["created_at"] <= api.clock() for event in told["data"])


async def test_late_events_do_not_undo_what_the_ledger_has_shown(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await history.claim(api.objects, "trainer", attempt=2, expires=api.clock() + 10)
    await api.projection.reconcile()
    for attempt, state, at in ((1, "waiting", 3600.0), (1, "retrying", 0.0), (None, "retrying", 3600.0)):
        event = history.progress("trainer", state, attempt=attempt, message=HUB)
        await api.projection.take(event, delivery(event, f"ftevent-{state}{at}", api.clock() + at))
        stage = (await shown(api, history))["stages"]["trainer"]
        assert (stage["state"], stage["waiting_for"]) == ("running", None)


@pytest.mark.parametrize("stage", ["trainer", "validate", "inference", "synthesis", "../..", ""])
async def test_an_end_that_the_ledger_does_not_know_is_not_shown(
    api: Api, training_job: JobHistory, stage: str
) -> None:
    """A result is in the ledger before its event is on a topic. This one comes from somebody else."""
    before, told = await shown(api, training_job), await said(api, training_job)
    event = training_job.failed(stage)
    await api.projection.take(event, delivery(event, "ftevent-forged", api.clock()))
    assert await shown(api, training_job) == before
    assert await said(api, training_job) == told


async def test_an_end_is_shown_from_the_event_alone_while_the_ledger_is_away(
    api: Api, training_job: JobHistory
) -> None:
    api.objects.available = False
    event = training_job.failed()
    await api.projection.take(event, delivery(event, "ftevent-f", api.clock()))
    assert (await shown(api, training_job))["status"] == "failed"


# --- damage -------------------------------------------------------------------------------------------------------


async def test_a_row_that_cannot_be_read_is_shown_as_such_and_then_made_anew(api: Api) -> None:
    stories = [JobHistory(1), JobHistory(2, created_at=T0 + 1), JobHistory(3, created_at=T0 + 2)]
    for history in stories:
        await history.write_documents(api.objects)
    await api.projection.reconcile()
    await api.damage(stories[1], '{"job_id": 7}')
    seen: list[Any] = []
    page = await api.get("/jobs", limit=1)
    while True:
        seen += page["data"]
        if not page["has_more"]:
            break
        page = await api.get("/jobs", limit=1, after=page["last_id"])
    assert [job["id"] for job in seen] == [history.job_id for history in stories[::-1]]
    assert [job["status"] for job in seen] == ["succeeded"] * 3
    assert [[note["code"] for note in job["notes"]] for job in seen] == [[], ["unreadable"], []]
    await api.projection.follow()
    again = (await api.get("/jobs"))["data"][1]
    assert (again["id"], again["deployment"]["alias"], again["notes"]) == (stories[1].job_id, "support", [])


async def test_a_damaged_row_does_not_refuse_the_next_event(api: Api, training_job: JobHistory) -> None:
    await api.damage(training_job, "[]")
    await api.take(training_job.events[5:7])
    assert (await shown(api, training_job))["stages"]["trainer"]["step"] == 3


@pytest.mark.parametrize("stage", ["validate", "trainer", "evaluator"])
async def test_an_event_that_this_version_cannot_read_hides_only_its_own_part(
    api: Api, history: JobHistory, stage: str
) -> None:
    """A figure that is not a number is stored as null, which its model refuses to read."""
    other = JobHistory(5)
    await other.accept(api.objects)
    await api.projection.reconcile()
    state = await api.database.job(history.job_id)
    assert state is not None
    outcome = state.stages[stage].outcome
    assert outcome is not None
    data = dict.fromkeys(outcome.event.data) | {"job_id": history.job_id}
    broken = outcome.model_copy(update={"event": outcome.event.model_copy(update={"data": data})})
    stages = {**state.stages, stage: state.stages[stage].model_copy(update={"outcome": broken})}
    await api.damage(history, state.model_copy(update={"stages": stages}).model_dump_json())

    page = await api.get("/jobs")
    assert {job["id"] for job in page["data"]} == {history.job_id, other.job_id}
    job = await shown(api, history)
    part = {"validate": "validation", "trainer": "training", "evaluator": "evaluation"}
    assert [name for name in part if job[part[name]] is None] == [stage]
    assert (job["status"], job["fine_tuned_model"]) == ("succeeded", history.model)


async def test_a_failure_that_cannot_be_read_is_still_a_failure(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await history.finish(api.objects, "trainer", history.failed(), 9.0, "failed")
    await api.projection.reconcile()
    state = await api.database.job(history.job_id)
    assert state is not None
    await api.damage(history, state.model_dump_json().replace('"code":"out_of_memory"', '"code":null'))
    job = await shown(api, history)
    assert (job["status"], job["error"]["code"]) == ("failed", "unreadable")


async def test_a_job_that_cannot_be_shown_does_not_hide_the_others(
    api: Api, history: JobHistory, training_job: JobHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dependencies.job_view

    def broken(state: Any, *args: Any, **more: Any) -> Any:
        if state.job_id == history.job_id:
            raise OverflowError("a bug")
        return real(state, *args, **more)

    monkeypatch.setattr(dependencies, "job_view", broken)
    found = {job["id"]: job for job in (await api.get("/jobs"))["data"]}
    assert found[history.job_id]["status"] == "succeeded"
    assert found[history.job_id]["notes"][0]["code"] == "unreadable"
    assert found[training_job.job_id]["notes"] == []


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[1]", b'{"job_id": null}', b"[" * 10_000])
@pytest.mark.parametrize("name", ["ingest/result.json", "validate/result.json", "trainer/claim.json", "job.json"])
async def test_a_document_that_cannot_be_read_hides_neither_its_job_nor_the_others(
    api: Api, name: str, text: bytes
) -> None:
    harmed, other = JobHistory(1), JobHistory(2)
    await other.write_documents(api.objects)
    await harmed.write_documents(api.objects, until="validate")
    await harmed.claim(api.objects, "trainer", expires=api.clock() + 10)
    await api.objects.put(f"jobs/{harmed.job_id}/{name}", text)
    await api.projection.reconcile()
    found = {job["id"]: job["status"] for job in (await api.get("/jobs"))["data"]}
    assert found.pop(other.job_id) == "succeeded"
    if name == "job.json":
        assert found == {}
        assert error_of(await api.client.get(f"/jobs/{harmed.job_id}"))["code"] == "job_not_found"
    elif name == "trainer/claim.json":
        assert found == {harmed.job_id: "queued"}
    else:
        assert found == {harmed.job_id: "running"}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize(("name", "field"), [("job.json", "created_at"), ("validate/result.json", "finished_at")])
async def test_a_time_that_is_none_breaks_neither_the_list_nor_the_service(
    api: Api, name: str, field: str, value: str
) -> None:
    harmed, other = JobHistory(1), JobHistory(2)
    for history in (harmed, other):
        await history.write_documents(api.objects, until="validate")
    key = f"jobs/{harmed.job_id}/{name}"
    document = api.objects.held[key].data.decode()
    await api.objects.put(key, re.sub(rf'"{field}":[0-9.]+', f'"{field}":{value}', document).encode())
    assert api.objects.held[key].data.decode() != document
    async with in_background(api.projection.run()) as running:

        async def both() -> bool:
            return other.job_id in {job["id"] for job in (await api.get("/jobs"))["data"]} and api.projection.complete

        await until(both, "the other job is shown")
        await api.projection.reconcile()
        assert not running.done()
    await api.client.get(f"/jobs/{harmed.job_id}/events")
    assert other.job_id in {job["id"] for job in (await api.get("/jobs"))["data"]}


async def test_an_entry_of_the_history_that_cannot_be_read_does_not_hide_the_others(
    api: Api, history: JobHistory
) -> None:
    before = await said(api, history)
    await api.sql("UPDATE messages SET data = '{' WHERE position = (SELECT min(position) FROM messages)")
    assert await said(api, history) == before


async def test_a_bug_does_not_end_the_loops(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    async def broken() -> None:
        nonlocal calls
        calls += 1
        raise KeyError("a bug")

    monkeypatch.setattr(api.projection, "_follow_some", broken)
    async with in_background(api.projection.run()) as running:
        await until(lambda: calls > 2, "it was tried again")
        assert not running.done()


async def test_the_store_being_away_is_an_error_only_where_nothing_is_known(api: Api, history: JobHistory) -> None:
    api.objects.available = False
    with pytest.raises(TransientError):
        await api.projection.refresh("ftjob-unknown")
    assert (await api.client.get("/jobs/ftjob-unknown")).status_code == 503
    assert (await api.client.get(f"/jobs/{history.job_id}")).status_code == 200


@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("TUNESTREAM_STORE__SECRET_KEY"), 503), (StoreRefused("InvalidObjectState", ""), 502)],
)
async def test_a_store_that_refuses_is_no_bug_of_the_api(
    api: Api, history: JobHistory, error: Exception, status: int
) -> None:
    class Refusing(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            raise error

    api.objects = Refusing(clock=api.clock, disk=api.objects.disk)
    await api.restart()
    for path in (f"/jobs/{history.job_id}/report", "/jobs/ftjob-unknown"):
        answer = await api.client.get(path)
        assert answer.status_code in (status, 404)
        assert "SECRET_KEY" not in error_of(answer)["message"]
    assert (await api.client.get(f"/jobs/{history.job_id}/report")).status_code == status
