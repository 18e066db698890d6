"""The HTTP interface as a client sees it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from services.api.routes import jobs as jobs_route
from shared.events import JobControl
from tests.support.job_story import T0, TRACE, Story
from tests.support.spans import Spans, trace_of
from tests.unit.api.conftest import URL, Api


@pytest.fixture
async def story(api: Api) -> Story:
    """A job that has succeeded."""
    done = Story()
    await done.happens(api.objects)
    await api.take(done.events)
    return done


@pytest.fixture
async def training(api: Api) -> Story:
    """A job in the middle of its training."""
    running = Story(2)
    await running.happens(api.objects, until="validate")
    await api.take(running.events[:6])
    return running


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error, which must be in OpenAI's envelope, whole."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["message"] and body["error"]["type"]
    assert len(answer.headers["x-request-id"]) == 32
    return dict(body["error"])


# --- jobs ---------------------------------------------------------------------------------------------------------


async def test_pages_of_jobs_newest_first(api: Api) -> None:
    stories = [Story(number, created_at=T0 + number % 3) for number in range(5)]
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


async def test_an_empty_list_is_a_list(api: Api) -> None:
    assert await api.get("/jobs") == {
        "object": "list",
        "data": [],
        "has_more": False,
        "first_id": None,
        "last_id": None,
    }


async def test_jobs_of_one_status(api: Api, story: Story, training: Story) -> None:
    assert [job["id"] for job in (await api.get("/jobs", status="running"))["data"]] == [training.job_id]
    assert [job["id"] for job in (await api.get("/jobs", status="succeeded"))["data"]] == [story.job_id]


async def test_a_job_that_only_the_ledger_knows_is_found(api: Api) -> None:
    unheard = Story(7)
    await unheard.happens(api.objects)
    job = await api.get(f"/jobs/{unheard.job_id}")
    assert (job["id"], job["status"]) == (unheard.job_id, "succeeded")


@pytest.mark.parametrize("job_id", ["ftjob-unknown", "..", "%2e%2e%2fdeployments", "a b", "x" * 300])
async def test_there_is_no_such_job(api: Api, job_id: str) -> None:
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
    assert answer.status_code == 422
    error = error_of(answer)
    assert (error["param"], error["code"]) == (param, "invalid_value")
    assert param in error["message"]


async def test_a_page_after_nothing_known(api: Api, story: Story) -> None:
    for path in ("/jobs", f"/jobs/{story.job_id}/events"):
        answer = await api.client.get(path, params={"after": "ftevent-unknown"})
        assert (answer.status_code, error_of(answer)["param"]) == (404, "after")


# --- events -------------------------------------------------------------------------------------------------------


async def test_events_newest_first_or_oldest_first(api: Api, story: Story) -> None:
    path = f"/jobs/{story.job_id}/events"
    newest, oldest = await api.get(path, limit=100), await api.get(path, limit=100, order="asc")
    assert newest["data"] == oldest["data"][::-1]
    first, last = oldest["data"][0], oldest["data"][-1]
    assert first["message"] == f"Created fine-tuning job: {story.job_id}"
    assert last["message"] == "The job has successfully completed"
    assert set(first) == {"id", "object", "created_at", "level", "type", "message", "data"}
    assert (first["object"], first["created_at"]) == ("job.event", int(T0))
    assert all(event["id"].startswith("ftevent-") for event in oldest["data"])
    steps = [event["data"]["step"] for event in oldest["data"] if event["type"] == "metrics"]
    assert steps == [1, 2, 3]


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_events_hold_each_once(api: Api, story: Story, order: str) -> None:
    path = f"/jobs/{story.job_id}/events"
    whole = (await api.get(path, limit=1000, order=order))["data"]
    seen: list[Any] = []
    page = await api.get(path, limit=4, order=order)
    while page["has_more"]:
        seen += page["data"]
        page = await api.get(path, limit=4, order=order, after=page["last_id"])
    assert seen + page["data"] == whole


async def test_a_client_that_polls_sees_every_event_once_however_late_it_comes(api: Api) -> None:
    story = Story()
    await story.accept(api.objects)
    api.clock.now = T0 + 41  # while it happens
    late, path = [*story.events[3:], *story.events[:3]], f"/jobs/{story.job_id}/events"
    seen: list[str] = []
    for told in late:
        await api.take([told, told])
        page = await api.get(path, order="asc", limit=100, **({"after": seen[-1]} if seen else {}))
        seen += [event["id"] for event in page["data"]]
    everything = [event["id"] for event in (await api.get(path, order="asc", limit=100))["data"]]
    assert seen == everything
    assert len(set(seen)) == len(seen)


async def test_a_loss_that_is_not_a_number_is_null(api: Api, training: Story) -> None:
    data = {"train_loss": float("nan"), "grad_norm": float("inf")}
    await api.projection.take(training.progress("trainer", step=9, data=data), training.events[0].delivery)
    told = await api.get(f"/jobs/{training.job_id}/events", limit=100)
    assert {"step": 9, "train_loss": None, "grad_norm": None} in [event["data"] for event in told["data"]]
    assert (await api.get(f"/jobs/{training.job_id}"))["stages"]["trainer"]["data"]["grad_norm"] is None


# --- cancel -------------------------------------------------------------------------------------------------------


async def test_cancelling_leaves_a_wish_in_the_ledger_and_rings(api: Api, training: Story) -> None:
    for _ in range(2):  # asking twice asks once
        answer = await api.client.post(f"/jobs/{training.job_id}/cancel", headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["id"]) == (200, training.job_id)
    wishes = [key for key in api.objects.held if "/control/" in key]
    assert wishes == [f"jobs/{training.job_id}/control/cancel-1.json"]
    assert json.loads(api.objects.held[wishes[0]].data)["by"] == "api"
    [first, second] = api.bus.published
    assert first == second
    assert first.event == JobControl(job_id=training.job_id, action="cancel")
    assert (first.subject, first.traceparent) == (training.job_id, training.job.traceparent)


async def test_cancelling_works_while_the_bus_is_away(api: Api, training: Story) -> None:
    api.bus.available = False
    assert (await api.client.post(f"/jobs/{training.job_id}/cancel")).status_code == 200
    assert f"jobs/{training.job_id}/control/cancel-1.json" in api.objects.held


async def test_a_finished_job_cannot_be_cancelled_and_no_client_should_retry(api: Api, story: Story) -> None:
    answer = await api.client.post(f"/jobs/{story.job_id}/cancel")
    assert (answer.status_code, answer.headers["x-should-retry"]) == (400, "false")
    assert "succeeded" in error_of(answer)["message"]
    assert not [key for key in api.objects.held if "/control/" in key]


async def test_the_ledger_decides_whether_it_is_too_late_to_cancel(api: Api, training: Story) -> None:
    await training.finish(api.objects, "trainer", training.failed(), 9.0, "failed")
    answer = await api.client.post(f"/jobs/{training.job_id}/cancel")
    assert answer.status_code == 400
    assert "failed" in error_of(answer)["message"]


# --- files --------------------------------------------------------------------------------------------------------


async def test_the_report_and_the_files_come_from_the_ledger(api: Api, story: Story) -> None:
    report = await api.client.get(f"/jobs/{story.job_id}/report")
    assert (report.status_code, report.text) == (200, "report.html of evaluator")
    assert report.headers["content-type"] == "text/html; charset=utf-8"
    assert "sandbox" in report.headers["content-security-policy"]
    assert report.headers["content-length"] == str(len(report.content))
    job = await api.get(f"/jobs/{story.job_id}")
    texts = {name: (await api.client.get(f"/jobs/{story.job_id}/files/{name}")).text for name in job["files"]}
    assert texts == {
        "curves.png": "curves.png of trainer",
        "report.html": "report.html of evaluator",
        "report.json": "report.json of evaluator",
        "validation-report.json": "report.json of validate",
    }
    assert job["evaluation"]["html"] == f"{URL}/jobs/{story.job_id}/report"


async def test_a_job_that_failed_in_validation_still_shows_its_report(api: Api) -> None:
    bad = Story(3)
    await bad.happens(api.objects, until="ingest")
    await api.objects.put(f"jobs/{bad.job_id}/validate/attempt-1/report.json", b'{"problems": []}')
    await bad.finish(api.objects, "validate", bad.failed("validate", "invalid_training_file"), 2.0, "failed")
    job = await api.get(f"/jobs/{bad.job_id}")
    assert job["files"] == ["validation-report.json"]
    assert (await api.get(f"/jobs/{bad.job_id}/files/validation-report.json")) == {"problems": []}


@pytest.mark.parametrize("path", ["report", "files/curves.png", "files/..%2f..%2fjob.json"])
async def test_a_file_that_is_not_there_yet(api: Api, training: Story, path: str) -> None:
    answer = await api.client.get(f"/jobs/{training.job_id}/{path}")
    assert answer.status_code == 404
    error_of(answer)


async def test_a_file_that_was_overwritten_is_not_passed_on(api: Api, story: Story) -> None:
    await api.objects.put(f"jobs/{story.job_id}/evaluator/attempt-1/report.html", b"something else")
    answer = await api.client.get(f"/jobs/{story.job_id}/report")
    assert (answer.status_code, error_of(answer)["code"]) == (502, "corrupt_object")


# --- around it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic second", 401),
        ("Bearer ", 401),
        ("Bearer first", 200),
        ("bearer second", 200),
    ],
)
async def test_keys(api: Api, story: Story, header: str | None, status: int) -> None:
    api.keys = ("first", "second")
    await api.restart()
    headers = {"authorization": header} if header else {}
    for path in ("/jobs", f"/jobs/{story.job_id}", f"/jobs/{story.job_id}/events", f"/jobs/{story.job_id}/report"):
        answer = await api.client.get(path, headers=headers)
        assert answer.status_code == status
        if status == 401:
            error_of(answer)
    assert (await api.client.post(f"/jobs/{story.job_id}/cancel")).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/jobs", 405), ("GET", "/jobs/x/cancel", 405)]
)
async def test_what_does_not_exist_is_told_in_the_envelope(api: Api, method: str, path: str, status: int) -> None:
    answer = await api.client.request(method, path)
    assert answer.status_code == status
    assert path in error_of(answer)["message"]
    assert ("allow" in answer.headers) == (status == 405)


async def test_the_ledger_being_away_is_a_503_that_asks_to_come_back(api: Api) -> None:
    api.objects.available = False
    answer = await api.client.get("/jobs/ftjob-unknown")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert error_of(answer)["type"] == "server_error"


async def test_a_bug_is_a_500_in_the_envelope_that_tells_nothing(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(jobs_route, "listing", broken)
    answer = await api.client.get("/jobs")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in error_of(answer)["message"]


async def test_the_request_id_is_the_callers_trace(api: Api) -> None:
    answer = await api.client.get("/jobs", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    assert answer.headers["x-request-id"] == TRACE
    others = {(await api.client.get("/jobs")).headers["x-request-id"] for _ in range(2)}
    assert len(others) == 2


async def test_a_request_that_changes_something_has_a_span_that_its_id_leads_to(api: Api, spans: Spans) -> None:
    url, headers = "/jobs/canary-job/cancel", {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    answer = await api.client.post(url, headers=headers)
    alone = await api.client.post(url)
    await api.client.get("/jobs")
    called, other = spans.named("POST /jobs/{job_id}/cancel")
    assert [span.name for span in spans.all] == [called.name] * 2
    assert (called.attributes or {})["http.response.status_code"] == answer.status_code == 404
    assert trace_of(called) == answer.headers["x-request-id"] == TRACE
    assert (trace_of(other), other.parent) == (alone.headers["x-request-id"], None)
    assert "canary" not in called.to_json()
