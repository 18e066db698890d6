"""What all routes have in common: keys, errors, request ids."""

from __future__ import annotations

from typing import Any

import pytest

from services.api.resources.jobs import routes as jobs_route
from tests.support.data.job_history import TRACE, JobHistory
from tests.support.spans import Spans, trace_of
from tests.unit.api.conftest import Api, error_of


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
async def test_keys(api: Api, history: JobHistory, header: str | None, status: int) -> None:
    api.keys = ("first", "second")
    await api.restart()
    del api.client.headers["authorization"]
    headers = {"authorization": header} if header else {}
    for path in (
        "/jobs",
        f"/jobs/{history.job_id}",
        f"/jobs/{history.job_id}/events",
        f"/jobs/{history.job_id}/report",
    ):
        answer = await api.client.get(path, headers=headers)
        assert answer.status_code == status
        if status == 401:
            error_of(answer)
    assert (await api.client.post(f"/jobs/{history.job_id}/cancel")).status_code == 401
    assert (await api.client.get("/openapi.json")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/jobs", 405), ("GET", "/jobs/x/cancel", 405)]
)
async def test_an_unknown_path_or_method_is_an_error_in_the_envelope(
    api: Api, method: str, path: str, status: int
) -> None:
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
