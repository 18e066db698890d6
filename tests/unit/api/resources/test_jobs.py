"""/jobs as a client sees it."""

from __future__ import annotations

import asyncio
import json

import pytest

from shared.events import JobControl
from tests.support.data.job_history import T0, JobHistory
from tests.support.waiting import until
from tests.unit.api.conftest import Api, error_of


async def test_pages_of_jobs_newest_first(api: Api) -> None:
    stories = [JobHistory(number, created_at=T0 + number % 3) for number in range(5)]
    for each in stories:
        await each.accept(api.objects)
    await api.projection.reconcile()
    expected = [s.job_id for s in sorted(stories, key=lambda s: (s.created_at, s.job_id), reverse=True)]
    seen: list[str] = []
    page = await api.get("/jobs", limit=2)
    while True:
        assert page["object"] == "list"
        found = [job["id"] for job in page["data"]]
        assert (page["first_id"], page["last_id"]) == (found[0], found[-1])
        seen += found
        if not page["has_more"]:
            break
        page = await api.get("/jobs", limit=2, after=page["last_id"])
    assert seen == expected


async def test_a_job_says_how_its_rows_compare_with_the_server(api: Api, history: JobHistory) -> None:
    job = await api.get(f"/jobs/{history.job_id}")
    assert job["validation"]["as_served"] == (
        "80 turns compared with vLLM 0.32.0: 0 differences, template 3f2a91c07b1e"
    )


async def test_an_empty_list_is_a_list(api: Api) -> None:
    assert await api.get("/jobs") == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
        "notes": [],
    }


async def test_jobs_of_one_status(api: Api, history: JobHistory, training_job: JobHistory) -> None:
    assert [job["id"] for job in (await api.get("/jobs", status="running"))["data"]] == [training_job.job_id]
    assert [job["id"] for job in (await api.get("/jobs", status="succeeded"))["data"]] == [history.job_id]


async def test_a_job_that_only_the_ledger_knows_is_found(api: Api) -> None:
    unheard = JobHistory(7)
    await unheard.write_documents(api.objects)
    job = await api.get(f"/jobs/{unheard.job_id}")
    assert (job["id"], job["status"]) == (unheard.job_id, "succeeded")


@pytest.mark.parametrize("job_id", ["ftjob-unknown", "..", "%2e%2e%2fdeployments", "a b", "x" * 300])
async def test_an_unknown_job_is_a_404(api: Api, job_id: str) -> None:
    answer = await api.client.get(f"/jobs/{job_id}")
    assert answer.status_code == 404
    assert error_of(answer)["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=101", "limit"),
        ("/jobs?limit=x", "limit"),
        ("/jobs?status=x", "status"),
    ],
)
async def test_a_wrong_parameter_is_named(api: Api, path: str, param: str) -> None:
    answer = await api.client.get(path)
    assert answer.status_code == 400
    error = error_of(answer)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert param in error["message"]


async def test_a_page_after_an_unknown_object_is_a_404(api: Api, history: JobHistory) -> None:
    for path in ("/jobs", f"/jobs/{history.job_id}/events"):
        answer = await api.client.get(path, params={"after": "ftevent-unknown"})
        assert (answer.status_code, error_of(answer)["param"]) == (404, "after")


# --- cancel ---------------------------------------------------------------------------------------------------------


async def test_cancelling_writes_one_control_document_and_publishes_the_event(
    api: Api, training_job: JobHistory
) -> None:
    for _ in range(2):  # asking twice asks once
        answer = await api.client.post(
            f"/jobs/{training_job.job_id}/cancel", headers={"content-type": "application/json"}
        )
        assert (answer.status_code, answer.json()["id"]) == (200, training_job.job_id)
    wishes = [key for key in api.objects.held if "/control/" in key]
    assert wishes == [f"jobs/{training_job.job_id}/control/cancel-1.json"]
    assert json.loads(api.objects.held[wishes[0]].data)["by"] == "api"
    await until(lambda: len(api.bus.published) == 2, "both are published")
    [first, second] = api.bus.published
    assert first == second
    assert first.event == JobControl(job_id=training_job.job_id, action="cancel")
    assert (first.subject, first.traceparent) == (training_job.job_id, training_job.job.traceparent)


async def test_cancelling_works_while_the_bus_is_away(api: Api, training_job: JobHistory) -> None:
    api.bus.available = False
    assert (await api.client.post(f"/jobs/{training_job.job_id}/cancel")).status_code == 200
    assert f"jobs/{training_job.job_id}/control/cancel-1.json" in api.objects.held


async def test_cancelling_answers_at_once_while_the_bus_says_nothing(api: Api, training_job: JobHistory) -> None:
    silence = asyncio.Event()

    async def say_nothing(event: object) -> None:
        await silence.wait()

    api.bus.before = say_nothing  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        assert (await api.client.post(f"/jobs/{training_job.job_id}/cancel")).status_code == 200
    assert f"jobs/{training_job.job_id}/control/cancel-1.json" in api.objects.held
    silence.set()
    await until(lambda: api.bus.events(JobControl), "it is published when the bus is back")


async def test_a_finished_job_cannot_be_cancelled_and_no_client_should_retry(api: Api, history: JobHistory) -> None:
    answer = await api.client.post(f"/jobs/{history.job_id}/cancel")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
    assert "succeeded" in error_of(answer)["message"]
    assert not [key for key in api.objects.held if "/control/" in key]


async def test_cancelling_again_is_no_error_for_a_client_that_lost_the_answer(
    api: Api, training_job: JobHistory, history: JobHistory
) -> None:
    """The job has ended meanwhile, as it should. One that ended by itself is a refusal still."""
    again = {"x-stainless-retry-count": "1"}
    await api.client.post(f"/jobs/{training_job.job_id}/cancel")
    await training_job.finish(api.objects, "trainer", training_job.failed(code="cancelled"), 9.0, "cancelled")
    await api.projection.reconcile()
    for path in (f"/jobs/{training_job.job_id}", f"/v1/fine_tuning/jobs/{training_job.job_id}"):
        answer = await api.client.post(f"{path}/cancel", headers=again)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert (await api.client.post(f"{path}/cancel")).status_code == 400
    assert (await api.client.post(f"/jobs/{history.job_id}/cancel", headers=again)).status_code == 400


async def test_the_ledger_decides_whether_it_is_too_late_to_cancel(api: Api, training_job: JobHistory) -> None:
    await training_job.finish(api.objects, "trainer", training_job.failed(), 9.0, "failed")
    answer = await api.client.post(f"/jobs/{training_job.job_id}/cancel")
    assert answer.status_code == 400
    assert "failed" in error_of(answer)["message"]
