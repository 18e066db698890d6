"""/v1/webhook_endpoints, as the official client uses it."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import openai
import pytest

from tests.support.fakes.servers import refusing_port
from tests.unit.api.conftest import error_of
from tests.unit.api.webhooks.world import CANCELLED, FAILED, SUCCEEDED, Receiver, Replica, World

JSON = {"content-type": "application/json"}
URL = "https://example.invalid/hook"


async def send(api: Replica, method: str, path: str, project: str = "default", **more: Any) -> httpx.Response:
    headers = {"authorization": "Bearer key", "openai-project": project}
    async with httpx.AsyncClient(base_url=api.server.url, headers=headers) as client:
        return await client.request(method, path, **more)


async def test_an_endpoint_from_its_creation_to_its_end(world: World, api: Replica) -> None:
    hooks = api.client().webhooks
    made = await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED, FAILED])
    assert (made.object, made.name, made.url, made.event_types) == (
        "webhook_endpoint",
        "ours",
        URL,
        [SUCCEEDED, FAILED],
    )
    assert made.created_at == made.updated_at == int(world.clock.now)
    assert made.signing_secret.startswith("whsec_")
    assert 24 <= len(base64.b64decode(made.signing_secret[6:], validate=True)) <= 64

    shown = await hooks.retrieve(made.id)
    assert (shown.id, shown.url, shown.signing_secret_hint) == (made.id, URL, f"whsec_…{made.signing_secret[-4:]}")
    world.clock.now += 60
    same = await hooks.update(made.id, name="ours", event_types=[SUCCEEDED, FAILED])
    assert same.updated_at == made.updated_at
    renamed = await hooks.update(made.id, name="theirs")
    assert (renamed.name, renamed.url, renamed.updated_at) == ("theirs", URL, int(world.clock.now))
    rotated = await hooks.rotate_secret(made.id)
    assert rotated.signing_secret != made.signing_secret

    gone = await hooks.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "webhook_endpoint.deleted")
    with pytest.raises(openai.NotFoundError) as error:
        await hooks.retrieve(made.id)
    assert error.value.code == "webhook_endpoint_not_found"
    document = json.loads(world.store.held[f"webhooks/endpoints/{made.id}.json"].data)
    assert document["deleted_at"] is not None and document["secret"] == ""


async def test_the_secret_is_shown_by_creation_and_rotation_alone(api: Replica) -> None:
    made = await api.client().webhooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    path = f"/v1/webhook_endpoints/{made.id}"
    for answer in (
        await send(api, "GET", path),
        await send(api, "GET", "/v1/webhook_endpoints"),
        await send(api, "POST", path, json={"name": "new"}),
        await send(api, "DELETE", path),
    ):
        assert answer.status_code == 200
        assert made.signing_secret not in answer.text
        assert "signing_secret" not in answer.json()


async def test_the_list_is_newest_first_and_complete(world: World, api: Replica) -> None:
    hooks, made = api.client().webhooks, list[str]()
    for number in range(7):
        world.clock.now += 1
        made.append((await hooks.create(name=f"{number}", url=URL, event_types=[SUCCEEDED])).id)
    await hooks.delete(made.pop(3))
    assert [each.id async for each in hooks.list(limit=2)] == made[::-1]
    assert [each.id async for each in hooks.list(limit=6)] == made[::-1]
    with pytest.raises(openai.NotFoundError):
        await hooks.list(after="whe_none")


async def test_a_client_may_delete_what_it_lists(world: World, api: Replica) -> None:
    hooks = api.client().webhooks
    for number in range(5):
        world.clock.now += 1
        await hooks.create(name=f"{number}", url=URL, event_types=[SUCCEEDED])
    names = list[str]()
    async for each in hooks.list(limit=2):
        names.append(each.name)
        await hooks.delete(each.id)
    assert names == ["4", "3", "2", "1", "0"]
    assert [each.id async for each in hooks.list()] == []


async def test_deleting_again_is_no_error_for_a_client_that_lost_the_answer(api: Replica) -> None:
    hooks = api.client().webhooks
    made = await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    await hooks.delete(made.id)
    again = {"x-stainless-retry-count": "1"}
    assert (await hooks.delete(made.id, extra_headers=again)).deleted
    for headers, endpoint in ((again | {"openai-project": "other"}, made.id), (again, "whe_none"), ({}, made.id)):
        with pytest.raises(openai.NotFoundError):
            await hooks.delete(endpoint, extra_headers=headers)
    with pytest.raises(openai.NotFoundError):
        await hooks.retrieve(made.id, extra_headers=again)


async def test_the_types_of_events_are_those_that_are_sent(api: Replica) -> None:
    types = await api.client().webhooks.event_types.list()
    assert (types.object, types.data) == ("list", [SUCCEEDED, FAILED, CANCELLED])


async def test_a_sample_is_signed_and_the_answer_is_told(api: Replica, receiver: Receiver) -> None:
    hooks = api.client().webhooks
    made = await hooks.create(name="ours", url=receiver.url, event_types=[SUCCEEDED])
    receiver.status = 418
    told = await hooks.test(made.id, event_type=FAILED)
    assert (told.status_code, told.success, told.event_type) == (418, True, FAILED)
    assert (told.object, told.webhook_endpoint_id) == ("webhook_endpoint.test", made.id)
    event = hooks.unwrap(receiver.got[0].body, receiver.got[0].headers, secret=made.signing_secret)
    assert event.type == FAILED


async def test_a_sample_that_nobody_takes_is_an_error_that_is_not_tried_again(api: Replica) -> None:
    with refusing_port() as port:
        url = f"http://127.0.0.1:{port}/"
        made = await api.client().webhooks.create(name="ours", url=url, event_types=[SUCCEEDED])
        with pytest.raises(openai.BadRequestError, match="no connection") as error:
            await api.client().webhooks.test(made.id, event_type=SUCCEEDED)
    assert error.value.code == "webhook_endpoint_unreachable"
    assert error.value.response.headers["x-should-retry"] == "false"


async def test_an_endpoint_of_another_project_does_not_exist(api: Replica) -> None:
    made = await api.client("theirs").webhooks.create(name="theirs", url=URL, event_types=[SUCCEEDED])
    missing = f"whe_{'a' * 24}"
    paths = (("GET", ""), ("POST", ""), ("DELETE", ""), ("POST", "/rotate_secret"), ("POST", "/test"))
    for method, more in paths:
        body = {"json": {"event_type": SUCCEEDED}} if more == "/test" else {}
        theirs = await send(api, method, f"/v1/webhook_endpoints/{made.id}{more}", "ours", **body)
        none = await send(api, method, f"/v1/webhook_endpoints/{missing}{more}", "ours", **body)
        assert (theirs.status_code, none.status_code) == (404, 404)
        assert error_of(theirs) == {**error_of(none), "message": error_of(none)["message"].replace(missing, made.id)}
    assert [each.id async for each in api.client("ours").webhooks.list()] == []
    with pytest.raises(openai.NotFoundError):
        await api.client("ours").webhooks.list(after=made.id)
    assert (await api.client("theirs").webhooks.retrieve(made.id)).name == "theirs"


@pytest.mark.parametrize("name", ["..", "whe_", "whe_../x", "%2e%2e%2fjobs", "whe_" + "A" * 24, "a" * 3000])
async def test_odd_ids_are_no_endpoints(api: Replica, name: str) -> None:
    answer = await send(api, "GET", f"/v1/webhook_endpoints/{name}")
    assert answer.status_code in (200, 404) if name == ".." else answer.status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"event_types": []}, 400, "event_types"),
        ({"event_types": ["batch.completed"]}, 400, "event_types"),
        ({"event_types": None}, 400, "event_types"),
        ({"name": ""}, 400, "name"),
        ({"name": "\ud800"}, 400, "name"),
        ({"url": 7}, 400, "url"),
        ({"url": "ftp://example.com/"}, 400, "url"),
        ({"more": 1}, 400, "more"),
    ],
)
async def test_what_is_wrong_with_a_new_endpoint_is_named(
    api: Replica, change: dict[str, Any], status: int, param: str
) -> None:
    body = {"name": "ours", "url": URL, "event_types": [SUCCEEDED]} | change
    answer = await send(api, "POST", "/v1/webhook_endpoints", content=json.dumps(body), headers=JSON)
    assert (answer.status_code, error_of(answer)["param"]) == (status, param)
    assert not [key for key in api.objects.held if key.startswith("webhooks/")]


async def test_a_project_has_only_so_many(api: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.api.resources.webhooks.routes.MOST_ENDPOINTS", 2)
    hooks = api.client().webhooks
    for _ in range(2):
        made = await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    with pytest.raises(openai.BadRequestError, match="delete one"):
        await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    await api.client("theirs").webhooks.create(name="theirs", url=URL, event_types=[SUCCEEDED])
    await hooks.delete(made.id)
    await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED])


async def test_changes_at_the_same_time_lose_nothing(api: Replica) -> None:
    made = await api.client().webhooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    replace = api.objects.replace
    others = [{"url": "https://example.invalid/new"}]

    async def first(key: str, data: bytes, etag: str) -> str:
        if others:
            other = others.pop()
            await api.client().webhooks.update(made.id, **other)
        return await replace(key, data, etag)

    api.objects.replace = first  # type: ignore[method-assign]
    await api.client().webhooks.update(made.id, name="new")
    now = await api.client().webhooks.retrieve(made.id)
    assert (now.name, now.url) == ("new", "https://example.invalid/new")


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://0xa9fea9fe/",
        "http://[::ffff:169.254.169.254]/",
        "http://[fe80::1]/",
        "http://0.0.0.0/",
    ],
)
async def test_metadata_services_are_refused_when_an_endpoint_is_made_or_changed(api: Replica, url: str) -> None:
    hooks = api.client().webhooks
    with pytest.raises(openai.BadRequestError, match="no webhook may reach") as error:
        await hooks.create(name="ours", url=url, event_types=[SUCCEEDED])
    assert (error.value.code, error.value.param) == ("invalid_url", "url")
    made = await hooks.create(name="ours", url=URL, event_types=[SUCCEEDED])
    with pytest.raises(openai.BadRequestError):
        await hooks.update(made.id, url=url)
