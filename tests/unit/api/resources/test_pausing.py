"""A user pauses a job and resumes it: what the api answers, writes, and knows without Kafka."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from shared import control
from shared.errors import ConfigError
from shared.events import JobControl
from tests.support.data.job_history import JobHistory
from tests.support.waiting import until
from tests.unit.api.conftest import Api, error_of


def wishes(api: Api) -> list[str]:
    return sorted(key.rpartition("/")[2] for key in api.objects.held if "/control/" in key)


def woken(api: Api, job_id: str) -> list[str]:
    return [key.split("/")[1] for key in api.objects.held if key.startswith("pending/") and key.endswith(job_id)]


async def ask(api: Api, history: JobHistory, action: str) -> Any:
    answer = await api.client.post(
        f"/jobs/{history.job_id}/{action}", headers={"content-type": "application/json"}, content=b""
    )
    assert answer.status_code == 200, answer.text
    return answer.json()


async def told(api: Api, history: JobHistory) -> list[str]:
    events = await api.get(f"/jobs/{history.job_id}/events", limit=1000, order="asc")
    return [event["message"] for event in events["data"] if event["message"] in ("Job paused", "Job resumed")]


async def test_a_paused_job_says_so_until_it_is_resumed_and_worked_on(api: Api, training_job: JobHistory) -> None:
    job_id = training_job.job_id
    assert (await ask(api, training_job, "pause"))["status"] == "paused"
    assert wishes(api) == ["pause-1.json"]
    assert json.loads(api.objects.held[f"jobs/{job_id}/control/pause-1.json"].data)["by"] == "api"
    assert woken(api, job_id) == ["trainer"], "the stage whose turn it is"
    assert [job["id"] for job in (await api.get("/jobs", status="paused"))["data"]] == [job_id]
    await training_job.claim(api.objects, "trainer", expires=api.clock(), given_back=True, paused=True)
    await api.projection.reconcile()
    stage = (await api.get(f"/jobs/{job_id}"))["stages"]["trainer"]
    assert (stage["state"], stage["waiting_for"], stage["eta_seconds"]) == ("waiting", None, None)

    api.clock.now += 3600
    assert (await ask(api, training_job, "resume"))["status"] == "queued"
    assert wishes(api) == ["pause-1.json", "resume-1.json"]
    assert woken(api, job_id) == ["trainer", "trainer"], "a new entry"
    await training_job.claim(api.objects, "trainer", expires=api.clock() + 15, attempt=2)
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{job_id}"))["status"] == "running"
    assert await told(api, training_job) == ["Job paused", "Job resumed"]
    await until(lambda: len(api.bus.published) == 2, "both are published")
    assert api.bus.events(JobControl) == [
        JobControl(job_id=job_id, action="pause"),
        JobControl(job_id=job_id, action="resume"),
    ]
    assert len({published.ce_id for published in api.bus.published}) == 2


async def test_pausing_twice_is_pausing_once_and_each_pause_has_its_number(api: Api, training_job: JobHistory) -> None:
    for number in (1, 2):
        for _ in range(2):
            assert (await ask(api, training_job, "pause"))["status"] == "paused"
        await until(lambda: len(api.bus.published) == 2 * number - 1, "it is published")  # noqa: B023
        await ask(api, training_job, "resume")
        await until(lambda: len(api.bus.published) == 2 * number, "it is published")  # noqa: B023
    assert wishes(api) == ["pause-1.json", "pause-2.json", "resume-1.json", "resume-2.json"]
    assert len({published.ce_id for published in api.bus.published}) == 4
    assert await told(api, training_job) == ["Job paused", "Job resumed"] * 2


async def test_what_is_not_paused_cannot_be_resumed(api: Api, training_job: JobHistory) -> None:
    for _ in range(2):
        answer = await api.client.post(f"/jobs/{training_job.job_id}/resume")
        assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
        assert (error_of(answer)["code"], error_of(answer)["param"]) == ("job_not_paused", "job_id")
        await ask(api, training_job, "pause")
        await ask(api, training_job, "resume")
    assert wishes(api)[-1] == "resume-2.json"


async def test_resuming_again_is_no_error_for_a_client_that_lost_the_answer(api: Api, training_job: JobHistory) -> None:
    again = {"x-stainless-retry-count": "1"}
    path = f"/jobs/{training_job.job_id}/resume"
    assert (await api.client.post(path, headers=again)).status_code == 400, "it was never paused"
    await ask(api, training_job, "pause")
    await ask(api, training_job, "resume")
    for each in (path, f"/v1/fine_tuning{path}"):
        answer = await api.client.post(each, headers=again)
        assert (answer.status_code, answer.json()["status"]) == (200, "queued")
    assert wishes(api) == ["pause-1.json", "resume-1.json"]
    await training_job.finish(api.objects, "trainer", training_job.failed(), 9.0, "failed")
    answer = await api.client.post(path, headers=again)
    assert (answer.status_code, answer.json()["status"]) == (200, "failed"), "it went on, to its end"


@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_a_finished_job_can_neither_be_paused_nor_resumed(api: Api, history: JobHistory, action: str) -> None:
    answer = await api.client.post(f"/jobs/{history.job_id}/{action}")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
    assert error_of(answer)["code"] == "job_finished"
    assert "succeeded" in error_of(answer)["message"]
    assert wishes(api) == []


@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_the_ledger_decides_whether_the_job_has_ended(api: Api, training_job: JobHistory, action: str) -> None:
    await training_job.finish(api.objects, "trainer", training_job.failed(), 9.0, "failed")
    answer = await api.client.post(f"/jobs/{training_job.job_id}/{action}")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "job_finished")


@pytest.mark.parametrize("action", ["pause", "resume"])
async def test_an_unknown_job_is_a_404(api: Api, action: str) -> None:
    answer = await api.client.post(f"/jobs/ftjob-unknown/{action}")
    assert (answer.status_code, error_of(answer)["code"]) == (404, "job_not_found")


async def test_a_job_that_is_being_cancelled_is_neither_paused_nor_resumed(api: Api, training_job: JobHistory) -> None:
    await ask(api, training_job, "pause")
    await ask(api, training_job, "cancel")
    answers = [await api.client.post(f"/jobs/{training_job.job_id}/{action}") for action in ("pause", "resume")]
    assert [(answer.status_code, error_of(answer)["code"]) for answer in answers] == [
        (400, "job_cancelled"),
        (400, "job_not_paused"),
    ]
    assert wishes(api) == ["cancel-1.json", "pause-1.json"]


async def test_a_job_that_ends_while_it_is_paused_is_finished(api: Api, training_job: JobHistory) -> None:
    """It had passed its point of no return, or was cancelled."""
    await ask(api, training_job, "pause")
    await training_job.finish(api.objects, "trainer", training_job.failed(code="cancelled"), 9.0, "cancelled")
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{training_job.job_id}"))["status"] == "cancelled"


async def test_pausing_works_while_the_bus_and_the_index_are_away(api: Api, training_job: JobHistory) -> None:
    class Forbidden(type(api.objects)):  # type: ignore[misc]
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if key.startswith("pending/") and operation == "create":
                raise ConfigError("denied")

    api.objects = Forbidden(clock=api.clock, disk=api.objects.disk)
    api.bus.available = False
    await api.restart()
    assert (await ask(api, training_job, "pause"))["status"] == "paused"
    assert (await ask(api, training_job, "resume"))["status"] == "queued"
    assert wishes(api) == ["pause-1.json", "resume-1.json"]


async def test_clients_that_pause_and_resume_at_once_agree_in_the_end(api: Api, training_job: JobHistory) -> None:
    url = f"/jobs/{training_job.job_id}"
    answers = await asyncio.gather(*(api.client.post(f"{url}/{action}") for action in ["pause", "resume"] * 10))
    assert {answer.status_code for answer in answers} <= {200, 400}
    paused = (await control.read(api.objects, training_job.job_id)).paused
    assert ((await api.get(url))["status"] == "paused") == paused
    await api.delete_database()
    await api.projection.reconcile()
    assert ((await api.get(url))["status"] == "paused") == paused


# --- from the ledger alone ----------------------------------------------------------------------------------------


async def test_pauses_of_another_replica_are_found_in_the_ledger(api: Api, training_job: JobHistory) -> None:
    await control.pause(api.objects, training_job.job_id)
    await api.projection.follow()
    assert (await api.get(f"/jobs/{training_job.job_id}"))["status"] == "paused"
    api.clock.now += 60
    await control.resume(api.objects, training_job.job_id)
    await api.projection.follow()
    assert (await api.get(f"/jobs/{training_job.job_id}"))["status"] == "queued"
    assert await told(api, training_job) == ["Job paused", "Job resumed"]


async def test_a_rebuild_tells_the_same(api: Api) -> None:
    history = JobHistory(9)
    await history.write_documents(api.objects, until="validate")
    await api.projection.reconcile()
    for _ in range(2):
        await ask(api, history, "pause")
        api.clock.now += 100
        await ask(api, history, "resume")
        api.clock.now += 100

    async def everything() -> Any:
        shown = await api.get(f"/jobs/{history.job_id}")
        return shown, await api.get(f"/jobs/{history.job_id}/events", limit=1000, order="asc")

    waiting = await everything()
    assert waiting[0]["status"] == "queued"
    await api.delete_database()
    await api.projection.reconcile()
    assert await everything() == waiting

    await history.write_documents(api.objects)
    await api.projection.reconcile()
    ended = await everything()
    assert ended[0]["status"] == "succeeded"
    await api.delete_database()
    await api.projection.reconcile()
    assert await everything() == ended
    assert await told(api, history) == ["Job paused", "Job resumed"] * 2


async def test_a_renewal_shows_that_the_work_never_stopped(api: Api, training_job: JobHistory) -> None:
    """The user resumed the job before its owner had seen the pause."""
    await training_job.claim(api.objects, "trainer", expires=api.clock() + 5)
    await api.projection.reconcile()
    api.clock.now += 600
    await ask(api, training_job, "pause")
    assert (await ask(api, training_job, "resume"))["status"] == "queued"
    await training_job.claim(api.objects, "trainer", expires=api.clock() + 15)
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{training_job.job_id}"))["status"] == "running"


async def test_a_job_is_paused_before_its_files_are_validated(api: Api) -> None:
    history = JobHistory(5)
    await history.write_documents(api.objects, until="ingest")
    assert (await ask(api, history, "pause"))["status"] == "paused"
    assert woken(api, history.job_id) == ["validate"]
    api.clock.now += 5
    assert (await ask(api, history, "resume"))["status"] == "queued"
    api.clock.now += 5
    await history.claim(api.objects, "validate", expires=api.clock() + 15)
    await api.projection.reconcile()
    assert (await api.get(f"/jobs/{history.job_id}"))["status"] == "validating_files"
