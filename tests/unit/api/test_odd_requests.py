"""Requests, events and stored documents that are wrong: no request is answered 5xx, and none hides the other jobs."""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.api.app import TOPICS
from shared import strict_json
from shared.events import JobProgress
from shared.stages.ledger import job_key
from tests.support.data.job_history import T0, JobHistory, delivery
from tests.support.fakes.bus import FakeBroker
from tests.support.waiting import until
from tests.unit.api.conftest import Api, error_of


@pytest.mark.parametrize(
    "query",
    [
        "limit=NaN",
        "limit=1e999",
        "limit=-1",
        "limit=" + "9" * 5000,
        "limit=%FF",
        "limit=1&limit=x",
        "status=%ED%A0%80",
        "status=",
        "after=%FF",
        "after=%00",
        "after=" + "x" * 10_000,
        "after=../..",
        "%FF=%FF&=&&;",
    ],
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/{job}/events"])
async def test_odd_queries_are_no_bug(api: Api, history: JobHistory, path: str, query: str) -> None:
    answer = await api.client.get(f"{path.format(job=history.job_id)}?{query}")
    assert answer.status_code in (200, 400, 404)
    if answer.status_code != 200:
        assert error_of(answer)["param"] in ("limit", "status", "after")


@pytest.mark.parametrize("name", ["%FF", "%ED%A0%80", "..%2F..", "%00", "x" * 5000, "a%0Ab", "%E2%80%AE"])
async def test_odd_paths_are_no_bug(api: Api, history: JobHistory, name: str) -> None:
    for path in (f"/jobs/{name}", f"/jobs/{name}/events", f"/jobs/{history.job_id}/files/{name}", f"/{name}"):
        answer = await api.client.get(
            path, headers={b"x": b"\xff", b"openai-organization": b"\xff", b"traceparent": b"\xff"}
        )
        assert answer.status_code == 404
        error_of(answer)
    error_of(await api.client.post(f"/jobs/{name}/cancel", content=b"{NaN"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"]),
    path=st.sampled_from(["/jobs", "/jobs/{x}", "/jobs/{x}/cancel", "/jobs/{x}/events", "/jobs/{x}/files/{x}", "/{x}"]),
    part=st.text(min_size=1, max_size=20),
    query=st.dictionaries(st.sampled_from(["limit", "after", "status", "order"]) | st.text(max_size=3), st.text()),
    body=st.binary(max_size=30),
)
async def test_no_request_makes_the_api_fail(
    api: Api, method: str, path: str, part: str, query: dict[str, str], body: bytes
) -> None:
    url = path.replace("{x}", quote(part, safe=""))
    answer = await api.client.request(method, url, params=query, content=body)
    assert answer.status_code < 500, answer.text


# --- what the topics and the ledger hold ------------------------------------------------------------------------------


async def test_an_event_that_is_no_json_is_a_dead_letter_and_hides_no_job(api: Api, history: JobHistory) -> None:
    broker = FakeBroker()
    bus = broker.bus("api")
    for event_type in TOPICS:
        bus.subscribe(event_type, api.projection.take)
    await bus.start()
    trained = history.trained.model_dump(mode="json") | {"train_loss": math.nan}
    poison = [
        ("training.completed", json.dumps(trained)),
        ("training.completed", json.dumps(trained | {"train_loss": 1e999})),
        ("training.completed", json.dumps(trained | {"train_loss": None})),
        ("job.progress", progress(history, data={"train_loss": math.nan})),
        ("job.progress", progress(history, data={"x": 10**400})),
        ("job.progress", progress(history, data={"\ud800": 1})),
        ("job.progress", progress(history, message=["\ud800"])),
        ("job.progress", progress(history, eta_seconds=math.inf)),
        ("job.progress", progress(history, job_id="../../x")),
        ("job.progress", '{"job_id": ' + "[" * 100_000),
    ]
    for topic, value in poison:
        broker.append(topic, value.encode())
    broker.append("job.progress", progress(history, stage="trainer", data={"good": 1}).encode())
    topics = {topic for topic, _ in poison}
    await until(lambda: sum(len(broker.topics[f"{topic}.dlq"]) for topic in topics) == len(poison), "the dead letters")
    await until(lambda: broker.committed["api.job.progress", "job.progress"] == 8, "the good event")
    await bus.stop()
    assert [job["id"] for job in (await api.get("/jobs"))["data"]] == [history.job_id]
    assert (await api.get(f"/jobs/{history.job_id}"))["stages"]["trainer"]["data"]["good"] == 1
    assert (await api.get(f"/jobs/{history.job_id}/events"))["data"]


def progress(history: JobHistory, **fields: Any) -> str:
    return json.dumps({"job_id": history.job_id, "stage": "trainer", "state": "running", **fields})


@pytest.mark.parametrize(
    "harm",
    [
        "{",
        "[]",
        '{"job_id": "x"}',
        '{"manifest": {"spec": null}}',
        '{"manifest": NaN, "stages": 3}',
        '{"stages": {"trainer": {"outcome": {"ending": "completed", "at": 1, "event": {"topic": "training.completed", '
        '"type": "t", "id": "i", "data": {"train_loss": null}}}}}}',
        '{"stages": {"trainer": {"outcome": {"ending": "failed", "at": 1, "event": {"topic": "job.failed", '
        '"type": "t", "id": "i", "data": {}}}}}}',
        '{"stages": {"trainer": {"outcome": {"ending": "failed", "at": 1, "event": {"topic": "of.the.future", '
        '"type": "t", "id": "i", "data": {}}}, "figures": {"a": {"at": 1, "id": "e", "value": 1}, "b": 3}}}}',
    ],
)
async def test_a_row_that_cannot_be_read_is_shown_as_far_as_possible(api: Api, harm: str) -> None:
    stories = [JobHistory(number, created_at=T0 + number) for number in range(3)]
    for history in stories:
        await history.write_documents(api.objects)
    await api.projection.reconcile()
    with sqlite3.connect(api.path) as connection:
        stored = connection.execute("SELECT state FROM jobs WHERE job_id = ?", (stories[1].job_id,)).fetchone()[0]
        merged = harm
        if harm.startswith('{"stages"'):
            merged = json.dumps(json.loads(stored) | strict_json.loads(harm))
        connection.execute("UPDATE jobs SET state = ? WHERE job_id = ?", (merged, stories[1].job_id))
    connection.close()
    wanted = [history.job_id for history in reversed(stories)]
    assert [job["id"] for job in (await api.get("/jobs"))["data"]] == wanted
    page, found = await api.get("/jobs", limit=1), []
    while page["data"]:
        found += [job["id"] for job in page["data"]]
        page = await api.get("/jobs", limit=1, after=page["last_id"])
    assert found == wanted
    assert (await api.get(f"/jobs/{stories[1].job_id}"))["id"] == stories[1].job_id
    assert (await api.client.post(f"/jobs/{stories[1].job_id}/cancel")).status_code in (200, 400)


async def test_a_manifest_whose_settings_cannot_be_read_is_still_a_job(api: Api, history: JobHistory) -> None:
    other = JobHistory(2)
    manifest = other.job.model_dump(mode="json")
    manifest["spec"]["hyperparameters"]["max_grad_norm"] = None  # an older version wrote infinity so
    await api.objects.put(job_key(other.job_id), json.dumps(manifest).encode())
    await api.projection.reconcile()
    assert {job["id"] for job in (await api.get("/jobs"))["data"]} == {history.job_id, other.job_id}
    assert (await api.get(f"/jobs/{other.job_id}"))["model"] == "tiny-base"


@pytest.mark.parametrize("document", [b"{", b"[" * 100_000, b"null", b'{"job_id": NaN}', b"\xff"])
async def test_a_job_whose_documents_cannot_be_read_is_no_bug(api: Api, document: bytes) -> None:
    job_id = JobHistory(3).job_id
    await api.objects.put(job_key(job_id), document)
    assert (await api.client.get(f"/jobs/{job_id}")).status_code == 404
    event = JobProgress(job_id=job_id, stage="trainer", state="running")
    await api.projection.take(event, delivery(event, "ftevent-x", T0))
    done = JobHistory(4)
    await done.write_documents(api.objects)
    for stage in ("trainer", "evaluator"):
        await api.objects.put(f"jobs/{done.job_id}/{stage}/result.json", document)
    await api.take(done.events)
    assert (await api.get(f"/jobs/{done.job_id}"))["id"] == done.job_id
    await api.projection.reconcile()
    assert [job["id"] for job in (await api.get("/jobs"))["data"]] == [done.job_id]


@pytest.mark.parametrize("data", ["{", "[]", "NaN", '{"a": NaN}', r'{"a": "\ud800"}'])
async def test_a_message_that_cannot_be_read_is_shown_without_its_data(
    api: Api, history: JobHistory, data: str
) -> None:
    whole = await api.get(f"/jobs/{history.job_id}/events", limit=100)
    with sqlite3.connect(api.path) as connection:
        connection.execute("UPDATE messages SET data = ? WHERE id = ?", (data, whole["first_id"]))
    connection.close()
    shown = await api.get(f"/jobs/{history.job_id}/events", limit=100)
    assert [each["id"] for each in shown["data"]] == [each["id"] for each in whole["data"]]
    assert shown["data"][0]["data"] == {}
