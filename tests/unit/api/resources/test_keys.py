"""API keys over HTTP: made, listed, revoked; and what becomes of their secrets."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import httpx
import pytest

from services.api.resources.keys.store import MAX_TRIES
from shared.errors import Conflict, StoreUnavailable
from shared.events import ApiKey
from shared.stages.ledger import KEYS, api_key_key
from shared.telemetry.logs import JsonFormatter
from tests.support.data.job_history import JobHistory
from tests.support.spans import Spans
from tests.unit.api.conftest import Api, error_of

FIELDS = {"id", "object", "name", "project", "rights", "limits", "created_at", "revoked_at"}


async def make(api: Api, **body: Any) -> dict[str, Any]:
    answer = await api.client.post("/keys", json={"name": "laptop", **body})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['secret']}"}


async def test_a_key_is_shown_with_its_secret_once(api: Api) -> None:
    limits = {"requests_per_minute": 5, "tokens_per_minute": 7, "max_open_jobs": 2}
    made = await make(api, project="p", rights=["serve"], limits=limits)

    assert set(made) == FIELDS | {"secret"}
    assert (made["object"], made["name"], made["project"], made["rights"]) == ("api_key", "laptop", "p", ["serve"])
    assert (made["limits"], made["revoked_at"]) == (limits, None)
    assert made["secret"].startswith(f"sk-ts-{made['id'].removeprefix('key_')}-")
    shown = await api.get(f"/keys/{made['id']}")
    assert set(shown) == FIELDS and (await api.get("/keys"))["data"] == [shown]


async def test_a_key_that_names_nothing_may_train_and_serve_in_the_project_of_the_request(api: Api) -> None:
    answer = await api.client.post("/keys", json={"name": "x"}, headers={"openai-project": "p"})
    made = answer.json()
    assert (made["project"], made["rights"]) == ("p", ["serve", "train"])
    assert set(made["limits"].values()) == {None}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": ""}, "name"),
        ({"name": "x" * 257}, "name"),
        ({"name": "x", "project": "../p"}, "project"),
        ({"name": "x", "rights": []}, "rights"),
        ({"name": "x", "rights": ["root"]}, "rights.0"),
        ({"name": "x", "limits": {"requests_per_minute": 0}}, "limits.requests_per_minute"),
        ({"name": "x", "limits": {"tokens_per_minute": 2**60}}, "limits.tokens_per_minute"),
        ({"name": "x", "limits": {"requests": 1}}, "limits.requests"),
        ({"name": "x", "secret": "mine"}, "secret"),
    ],
)
async def test_a_wrong_field_is_named(api: Api, body: dict[str, Any], param: str) -> None:
    answer = await api.client.post("/keys", json=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert (await api.get("/keys"))["data"] == []


async def test_the_list_has_pages_newest_first(api: Api) -> None:
    made = []
    for number in range(5):
        api.clock.now += 1
        made.append((await make(api, name=str(number)))["id"])
    seen: list[str] = []
    while True:
        page = await api.get("/keys", limit=2, **({"after": seen[-1]} if seen else {}))
        seen += [key["id"] for key in page["data"]]
        if not page["has_more"]:
            break
    assert seen == made[::-1]
    answer = await api.client.get("/keys", params={"after": "key_x"})
    assert (answer.status_code, error_of(answer)["param"]) == (404, "after")


async def test_a_new_key_works_at_once_also_on_another_replica(api: Api, history: JobHistory) -> None:
    """`restart` makes a process that has seen nothing; here it is the other one that made the key."""
    made = await make(api)
    for _ in range(2):
        assert (await api.client.get("/jobs", headers=bearer(made))).status_code == 200
        assert (await api.client.get("/keys", headers=bearer(made))).status_code == 403
        await api.restart()


async def test_a_revoked_key_is_refused_at_once_and_stays_in_the_list(api: Api) -> None:
    made = await make(api)
    assert (await api.client.get("/jobs", headers=bearer(made))).status_code == 200
    for _ in range(2):
        answer = await api.client.delete(f"/keys/{made['id']}")
        assert answer.json() == {"id": made["id"], "object": "api_key", "deleted": True}
    refused = await api.client.get("/jobs", headers=bearer(made))
    assert (refused.status_code, error_of(refused)["code"]) == (401, "invalid_api_key")
    [listed] = (await api.get("/keys"))["data"]
    assert listed["revoked_at"] is not None
    assert api_key_key(made["id"]) in api.objects.held, "nothing is deleted"


async def test_many_that_revoke_a_key_at_once_agree_on_when(api: Api) -> None:
    made = await make(api)
    answers = await asyncio.gather(*[api.client.delete(f"/keys/{made['id']}") for _ in range(10)])
    assert {answer.status_code for answer in answers} == {200}
    assert [call for call, _ in api.objects.calls].count("delete") == 0


@pytest.mark.parametrize("key_id", ["key_x", "key_" + "a" * 24, "..%2Fjobs", "%00", "key_" + "A" * 24])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_key_that_does_not_exist_is_not_found(api: Api, method: str, key_id: str) -> None:
    answer = await api.client.request(method, f"/keys/{key_id}")
    assert answer.status_code == 404
    error_of(answer)


async def test_a_damaged_document_is_named_and_hides_no_other(api: Api) -> None:
    made, other = await make(api), await make(api)
    api.objects.add(api_key_key(made["id"]), b"{")
    for method in ("GET", "DELETE"):
        answer = await api.client.request(method, f"/keys/{made['id']}")
        assert (answer.status_code, error_of(answer)["code"]) == (502, "corrupt_object")
    assert [key["id"] for key in (await api.get("/keys"))["data"]] == [other["id"]]


async def test_while_the_store_is_away_no_key_is_made_or_revoked(api: Api) -> None:
    made = await make(api)
    api.objects.available = False
    for answer in (
        await api.client.post("/keys", json={"name": "x"}),
        await api.client.get("/keys"),
        await api.client.delete(f"/keys/{made['id']}"),
    ):
        assert (answer.status_code, error_of(answer)["code"]) == (503, "service_unavailable")


async def test_a_store_in_which_others_always_win_is_no_bug(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made, tries = await make(api), 0

    async def replace(key: str, data: bytes, etag: str) -> str:
        nonlocal tries
        tries += 1
        raise Conflict(key)

    monkeypatch.setattr(api.objects, "replace", replace)
    assert (await api.client.delete(f"/keys/{made['id']}")).status_code == 503
    assert tries == MAX_TRIES


async def test_the_first_key_of_an_open_stack_locks_nobody_out(api: Api) -> None:
    api.keys = ()
    await api.restart()
    del api.client.headers["authorization"]
    answer = await api.client.post("/keys", json={"name": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (400, "admin_key_first")
    assert (await api.client.get("/jobs")).status_code == 200, "access is still open"

    admin = await make(api, rights=["admin"])
    assert (await api.client.get("/jobs")).status_code == 401, "from now on a key is needed"
    answer = await api.client.post("/keys", json={"name": "x"}, headers=bearer(admin))
    assert answer.status_code == 200
    assert (await api.client.delete(f"/keys/{admin['id']}", headers=bearer(admin))).status_code == 200
    assert (await api.client.get("/jobs")).status_code == 401, "a revoked key opens no door"


async def test_only_an_admin_sees_and_changes_keys(api: Api) -> None:
    made, admin = await make(api, rights=["train", "serve"]), await make(api, rights=["admin"])
    for method, path in (("GET", "/keys"), ("POST", "/keys"), ("DELETE", f"/keys/{admin['id']}")):
        answer = await api.client.request(method, path, json={"name": "x"}, headers=bearer(made))
        assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_permissions")
    assert (await api.client.delete(f"/keys/{made['id']}", headers=bearer(admin))).status_code == 200


async def test_no_secret_is_in_the_store_the_log_or_the_spans(
    api: Api, spans: Spans, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await make(api, name="a canary's name")
    await api.client.get("/jobs", headers=bearer(made))
    await api.client.delete(f"/keys/{made['id']}")
    await api.client.get("/jobs", headers=bearer(made))
    await api.client.get("/jobs", headers={"authorization": f"Bearer {made['secret'][:-1]}"})
    api.objects.available = False
    await api.client.get("/jobs", headers={"authorization": f"Bearer {made['secret'].replace('sk-ts-', 'sk-ts-b', 1)}"})

    random = made["secret"][-43:-1]
    lines = [JsonFormatter("api").format(record) for record in caplog.records]
    told = "".join(lines) + "".join(span.to_json() for span in spans.all)
    held = b"".join(each.data for key, each in api.objects.held.items() if key.startswith(KEYS))
    assert random not in told and random.encode() not in held
    audit = [line for line in lines if "an API key was" in line]
    assert len(audit) == 2
    assert all(made["id"] in line and '"by": "root"' in line and "canary" not in line for line in audit)


async def test_the_document_can_be_read_as_it_was_written(api: Api) -> None:
    made = await make(api)
    document = ApiKey.model_validate_json(api.objects.held[api_key_key(made["id"])].data)
    assert document.id == made["id"] and document.created_at == api.clock.now


async def test_a_lost_reply_is_told_and_not_hidden(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(key: str, data: bytes) -> str:
        raise StoreUnavailable("the reply was lost")

    monkeypatch.setattr(api.objects, "create", lost)
    answer: httpx.Response = await api.client.post("/keys", json={"name": "x"})
    assert answer.status_code == 503
