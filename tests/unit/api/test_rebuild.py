"""If the database is deleted or events are lost, the api still gives the same answers, from the ledger."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from services.api.app import TOPICS, group_of
from services.api.database import DatabaseBroken, ProjectionDatabase
from shared.errors import ConfigError, TransientError
from shared.events import JobProgress
from tests.support.data.job_history import T0, JobHistory, delivery
from tests.support.scrape import scrape
from tests.unit.api.conftest import Api


async def everything(api: Api, *stories: JobHistory) -> dict[str, Any]:
    told: dict[str, Any] = {"jobs": await api.get("/jobs")}
    for history in stories:
        told[history.job_id] = await api.get(f"/jobs/{history.job_id}/events", limit=1000, order="asc")
    return told


async def test_a_deleted_database_gives_the_same_answers_again(api: Api) -> None:
    stories = [JobHistory(1), JobHistory(2, created_at=T0 + 100, deployed=False), JobHistory(3, created_at=T0 + 50)]
    for history in stories:
        await history.write_documents(api.objects)
        await api.take(history.events)
    await api.projection.reconcile()
    before = await everything(api, *stories)
    assert [job["id"] for job in before["jobs"]["data"]] == [stories[n].job_id for n in (1, 2, 0)]

    await api.delete_database()
    assert (await api.get("/jobs"))["data"] == []
    await api.projection.reconcile()
    for history in stories:
        await api.take(reversed(history.events))
    assert await everything(api, *stories) == before


async def test_without_any_event_the_ledger_tells_of_every_job(api: Api) -> None:
    done, training_job, accepted = JobHistory(1), JobHistory(2, created_at=T0 + 1), JobHistory(3, created_at=T0 + 2)
    await done.write_documents(api.objects)
    await training_job.write_documents(api.objects, until="validate")
    await training_job.claim(api.objects, "trainer", expires=api.clock() + 10)
    await accepted.accept(api.objects)
    await api.projection.reconcile()
    jobs = (await api.get("/jobs"))["data"]
    assert [job["status"] for job in jobs] == ["validating_files", "running", "succeeded"]
    assert jobs[1]["stages"]["trainer"]["state"] == "running"
    assert jobs[2]["evaluation"]["passed"] is True


async def test_a_job_that_failed_without_an_event_is_found_in_the_ledger(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await api.take(history.events[:5])
    assert (await api.get(f"/jobs/{history.job_id}"))["status"] == "running"
    await history.finish(api.objects, "trainer", history.failed(), 9.0, "failed")
    await api.projection.reconcile()
    job = await api.get(f"/jobs/{history.job_id}")
    assert (job["status"], job["error"]["param"]) == ("failed", "batch_size")


async def test_a_job_that_is_given_back_after_a_failure_is_retrying(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await history.claim(api.objects, "trainer", expires=0.0, not_before=api.clock() + 4, failures=1)
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{history.job_id}"))["stages"]["trainer"]["state"] == "retrying"


async def test_a_settled_job_is_never_read_again_however_many_there_are(api: Api) -> None:
    for number in range(20):
        await JobHistory(number).write_documents(api.objects)
    await api.projection.reconcile()
    api.objects.calls.clear()
    await api.projection.follow()
    assert api.objects.calls == []
    await api.projection.discover()
    assert api.objects.calls == [("folders", "jobs/"), ("list", "ingest/asked/")]


async def test_one_document_that_cannot_be_read_does_not_hide_the_other_jobs(api: Api) -> None:
    good = JobHistory(1)
    await good.accept(api.objects)
    await api.objects.put("jobs/ftjob-aaaa/job.json", b"{")
    await api.projection.reconcile()
    assert [job["id"] for job in (await api.get("/jobs"))["data"]] == [good.job_id]


async def test_while_the_ledger_is_away_events_are_still_shown(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects, until="validate")
    await api.take(history.events[:3])
    api.objects.available = False
    with pytest.raises(TransientError):
        await api.projection.reconcile()
    await api.take(history.events)
    assert (await api.get(f"/jobs/{history.job_id}"))["status"] == "succeeded"


async def test_an_event_of_an_unknown_job_makes_no_job(api: Api) -> None:
    history = JobHistory()
    await api.take(history.events)
    assert (await api.get("/jobs"))["data"] == []
    assert (await api.client.get(f"/jobs/{history.job_id}")).status_code == 404


async def test_a_strangers_upload_is_left_to_ingest(api: Api) -> None:
    stranger = JobHistory().uploaded.model_copy(update={"job_id": None})
    await api.projection.take(stranger, delivery(stranger, "ftevent-x", T0))
    assert (await api.get("/jobs"))["data"] == []


async def test_the_end_of_a_job_brings_its_whole_history_with_it(api: Api) -> None:
    """Topics keep no order among themselves: model.deployed may overtake all others."""
    history = JobHistory()
    await history.accept(api.objects)
    await api.projection.reconcile()
    await history.write_documents(api.objects)
    await api.take(history.events[-1:])
    told = await api.get(f"/jobs/{history.job_id}/events", order="asc")
    assert [event["message"].split(":")[0] for event in told["data"]] == [
        "Created fine-tuning job",
        "Files validated, moving job to queued state",
        "New fine-tuned model created",
        "Evaluation on 20 examples passed the gate",
        "Model deployed",
        "The job has successfully completed",
    ]


async def test_an_event_that_is_published_again_keeps_its_time(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects)
    await api.take(history.events)
    before = await everything(api, history)
    for told in history.events:
        if not isinstance(told.event, JobProgress):
            await api.projection.take(told.event, delivery(told.event, told.ce_id, told.at + 600))
    assert await everything(api, history) == before


# --- the file -----------------------------------------------------------------------------------------------------


async def test_a_restart_keeps_everything_and_the_consumer_group(api: Api) -> None:
    history = JobHistory()
    await history.write_documents(api.objects)
    await api.take(history.events)
    before, group = await everything(api, history), group_of(api.database, "path")
    await api.restart()
    assert await everything(api, history) == before
    assert group_of(api.database, "path") == group


async def test_a_new_database_reads_the_topics_from_their_beginning(api: Api) -> None:
    group = group_of(api.database, "path")
    await api.delete_database()
    assert group_of(api.database, "path") != group


@pytest.mark.parametrize("harm", ["damaged", "newer", "no database"])
async def test_a_file_that_cannot_be_used_is_made_anew(api: Api, harm: str) -> None:
    history = JobHistory()
    await history.write_documents(api.objects)
    await api.projection.reconcile()
    database_id = api.database.database_id
    await api.stop()
    if harm == "newer":
        with sqlite3.connect(api.path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
    elif harm == "damaged":
        with api.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * 8192)
    else:
        api.path.write_bytes(b"not a database, but long enough to be looked at " * 10)
    api.start()
    assert api.database.database_id != database_id
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{history.job_id}"))["status"] == "succeeded"


async def test_a_place_that_can_hold_no_database_is_a_wrong_setting(api: Api) -> None:
    with pytest.raises(ConfigError, match="TUNESTREAM_API__DATABASE"):
        ProjectionDatabase(api.path / "below-a-file.sqlite3")


async def test_a_database_that_stops_working_stops_the_service_and_loses_no_event(api: Api) -> None:
    history = JobHistory()
    await history.accept(api.objects)
    with sqlite3.connect(api.path) as connection:
        connection.execute("DROP TABLE messages")
    connection.close()
    with pytest.raises(TransientError):  # the bus delivers it again
        await api.take(history.events[:1])
    with pytest.raises(DatabaseBroken):
        await api.projection.run()


def test_every_topic_of_a_job_is_followed() -> None:
    assert {event.topic for event in TOPICS} == {
        "dataset.uploaded",
        "dataset.validated",
        "training.completed",
        "eval.completed",
        "model.deployed",
        "job.progress",
        "job.failed",
    }


async def test_a_scrape_sees_how_many_jobs_have_each_status(api: Api) -> None:
    stories = [JobHistory(1), JobHistory(2)]
    for history in stories:
        await history.write_documents(api.objects)
    await api.projection.reconcile()
    seen = await scrape()
    assert seen.value("tunestream_jobs", status="succeeded") == 2
    assert seen.has("tunestream_jobs", status="failed") and not seen.value("tunestream_jobs", status="failed")
