"""POST /jobs/{id}/retry as a client sees it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from services.ingest.requests import Requests
from shared.events import JobControl, Tombstone
from shared.stages.ledger import job_key, retry_key, tombstone_key
from tests.support.data.job_history import JobHistory
from tests.support.fakes.bus import FakeBus
from tests.support.waiting import until
from tests.unit.api.conftest import Api, error_of


@pytest.fixture
async def failed_job(api: Api) -> JobHistory:
    """A job that failed in its training."""
    job = JobHistory(3)
    await job.write_documents(api.objects, until="validate")
    await job.finish(api.objects, "trainer", job.failed(), 9.0, "failed")
    return job


async def retry(api: Api, job_id: str, stage: str | None = None) -> Any:
    answer = await api.client.post(f"/jobs/{job_id}/retry", json={"from": stage} if stage else None)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def end(api: Api, job_id: str, code: str = "out_of_memory") -> None:
    """The retry `job_id` fails in its training, or is cancelled there."""
    await Requests(api.objects, FakeBus()).make_jobs()
    job = JobHistory(3)
    job.job_id = job_id
    for stage in ("ingest", "validate"):
        event, after = job.results[stage]
        await job.finish(api.objects, stage, event, after, "completed")
    outcome = "cancelled" if code == "cancelled" else "failed"
    await job.finish(api.objects, "trainer", job.failed(code=code), 99.0, outcome)


async def test_a_failed_job_is_tried_again_from_the_stage_in_which_it_failed(api: Api, failed_job: JobHistory) -> None:
    made = await retry(api, failed_job.job_id)
    assert made["id"] != failed_job.job_id
    assert (made["object"], made["status"], made["fine_tuned_model"]) == ("job", "validating_files", None)
    assert (made["origin"]["parent_job"], made["origin"]["from_stage"]) == (failed_job.job_id, "trainer")
    assert made["dataset"] == failed_job.job.dataset.model_dump()
    [asked] = [json.loads(held.data) for key, held in api.objects.held.items() if key == retry_key(made["id"])]
    assert (asked["parent_job"], asked["from_stage"], asked["rerun"]) == (failed_job.job_id, "trainer", 1)
    messages = [event["message"] for event in (await api.get(f"/jobs/{made['id']}/events", order="asc"))["data"]]
    assert messages[1] == f"Began as a retry of {failed_job.job_id} from trainer; adopted: validate"


async def test_the_new_job_is_the_same_after_ingest_has_made_it_and_the_database_was_deleted(
    api: Api, failed_job: JobHistory
) -> None:
    made = await retry(api, failed_job.job_id)
    assert await api.get(f"/jobs/{made['id']}") == made, "it is there at once, before ingest has made it"
    await Requests(api.objects, FakeBus()).make_jobs()
    await api.delete_database()
    later = await api.get(f"/jobs/{made['id']}")
    assert later | {"stages": made["stages"]} == made
    assert (await api.get("/jobs"))["data"]


async def test_asking_again_asks_once(api: Api, failed_job: JobHistory) -> None:
    first = await retry(api, failed_job.job_id)
    assert (await retry(api, failed_job.job_id, "trainer"))["id"] == first["id"]
    await Requests(api.objects, FakeBus()).make_jobs()
    assert (await retry(api, failed_job.job_id))["id"] == first["id"]
    both = await asyncio.gather(*(retry(api, failed_job.job_id) for _ in range(4)))
    assert {job["id"] for job in both} == {first["id"]}
    assert len([key for key in api.objects.held if key.startswith("ingest/retries/")]) == 1


async def test_requests_for_different_stages_at_once_are_different_jobs(api: Api, failed_job: JobHistory) -> None:
    stages = ["trainer", "validate", "trainer", "validate"]
    made = await asyncio.gather(*(retry(api, failed_job.job_id, stage) for stage in stages))
    assert [job["origin"]["from_stage"] for job in made] == stages
    assert len({job["id"] for job in made}) == 2


@pytest.mark.parametrize("code", ["out_of_memory", "cancelled"])
async def test_a_retry_that_has_ended_badly_can_be_asked_for_again(api: Api, failed_job: JobHistory, code: str) -> None:
    first = await retry(api, failed_job.job_id)
    await end(api, first["id"], code)
    second = await retry(api, failed_job.job_id)
    assert second["id"] not in (first["id"], failed_job.job_id)
    await end(api, second["id"])
    third = await retry(api, second["id"])
    assert third["origin"]["parent_job"] == second["id"]
    assert len({first["id"], second["id"], third["id"]}) == 3


async def test_a_number_that_a_user_has_given_to_another_job_is_left_to_it(api: Api, failed_job: JobHistory) -> None:
    first = await retry(api, failed_job.job_id)
    await api.objects.delete(retry_key(first["id"]))
    await api.objects.put(job_key(first["id"]), failed_job.job.model_dump_json().encode())
    second = await retry(api, failed_job.job_id)
    assert second["id"] != first["id"]


async def test_a_cancelled_job_can_be_tried_again(api: Api, training_job: JobHistory) -> None:
    await training_job.finish(api.objects, "trainer", training_job.failed(code="cancelled"), 9.0, "cancelled")
    made = await retry(api, training_job.job_id)
    assert made["origin"]["from_stage"] == "trainer"


@pytest.mark.parametrize("stage", ["validate", "trainer", "evaluator", "inference"])
async def test_a_job_that_succeeded_begins_from_the_stage_that_is_named(
    api: Api, history: JobHistory, stage: str
) -> None:
    answer = await api.client.post(f"/jobs/{history.job_id}/retry")
    assert (answer.status_code, error_of(answer)["param"]) == (400, "from")
    assert stage in error_of(answer)["message"]
    assert (await retry(api, history.job_id, stage))["origin"]["from_stage"] == stage


async def test_a_job_that_is_under_way_is_not_tried_again(api: Api, training_job: JobHistory) -> None:
    answer = await api.client.post(f"/jobs/{training_job.job_id}/retry", json={"from": "trainer"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "job_under_way")
    assert "cancel it" in error_of(answer)["message"]
    assert not [key for key in api.objects.held if key.startswith("ingest/")]


async def test_a_job_that_failed_in_ingest_has_nothing_to_begin_from(api: Api) -> None:
    job = JobHistory(4)
    await job.accept(api.objects)
    await job.finish(api.objects, "ingest", job.failed("ingest", "invalid_job_settings"), 1.0, "failed")
    answer = await api.client.post(f"/jobs/{job.job_id}/retry")
    assert (answer.status_code, error_of(answer)["code"]) == (400, "nothing_to_retry")
    assert "drop the dataset again" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"from": "inference"}, 400, "from"),  # not reached
        ({"from": "ingest"}, 400, "from"),
        ({"from": "traner"}, 400, "from"),
        ({"from": ""}, 400, "from"),
        ({"from": 3}, 400, "from"),
        ({"from": "x" * 1000}, 400, "from"),
        ({"form": "trainer"}, 400, "form"),
        ([], 400, None),
    ],
)
async def test_a_wrong_request_is_named(
    api: Api, failed_job: JobHistory, body: Any, status: int, param: str | None
) -> None:
    answer = await api.client.post(f"/jobs/{failed_job.job_id}/retry", json=body)
    assert (answer.status_code, error_of(answer)["param"]) == (status, param)
    assert not [key for key in api.objects.held if key.startswith("ingest/")]


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
async def test_a_request_without_a_stage_may_have_no_body(api: Api, failed_job: JobHistory, body: bytes) -> None:
    answer = await api.client.post(
        f"/jobs/{failed_job.job_id}/retry", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 200, answer.text


async def test_an_unknown_job_is_a_404(api: Api) -> None:
    answer = await api.client.post("/jobs/ftjob-unknown/retry", json={})
    assert (answer.status_code, error_of(answer)["code"]) == (404, "job_not_found")


async def test_while_the_store_is_away_nothing_is_promised(api: Api, failed_job: JobHistory) -> None:
    await api.get(f"/jobs/{failed_job.job_id}")
    api.objects.available = False
    answer = await api.client.post(f"/jobs/{failed_job.job_id}/retry")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


async def test_ingest_is_told_at_once_and_the_request_counts(api: Api, failed_job: JobHistory) -> None:
    made = await retry(api, failed_job.job_id)
    await until(lambda: api.bus.events(JobControl), "the request is on the bus")
    assert [(event.job_id, event.action) for event in api.bus.events(JobControl)] == [(made["id"], "resume")]  # type: ignore[attr-defined]


async def test_asking_again_answers_with_the_same_job_although_the_janitor_has_deleted_its_request(
    api: Api, failed_job: JobHistory
) -> None:
    first = await retry(api, failed_job.job_id)
    await Requests(api.objects, FakeBus()).make_jobs()
    await api.objects.delete(retry_key(first["id"]))
    assert (await retry(api, failed_job.job_id))["id"] == first["id"]
    await end(api, first["id"])
    second = await retry(api, failed_job.job_id)
    assert second["id"] != first["id"] and second["origin"]["parent_job"] == failed_job.job_id


async def test_a_job_whose_model_was_deleted_begins_again_with_its_training(api: Api, history: JobHistory) -> None:
    stone = Tombstone(prefix="x/", reason="", at=0.0).model_dump_json().encode()
    api.objects.add(tombstone_key("models", history.job_id), stone)
    for stage in ("evaluator", "inference"):
        refused = await api.client.post(f"/jobs/{history.job_id}/retry", json={"from": stage})
        assert (refused.status_code, error_of(refused)["code"]) == (400, "model_deleted")
        assert refused.headers["x-should-retry"] == "false"
    assert (await retry(api, history.job_id, "trainer"))["origin"]["from_stage"] == "trainer"
    assert (await api.get(f"/jobs/{history.job_id}"))["status"] == "succeeded", "the job still shows"
