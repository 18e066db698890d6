"""Permissions for tuned models and checkpoints: who may give them, what they look like, and that none is doubled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import openai
import pytest
from starlette.types import ASGIApp

from shared.access import tuned_models
from shared.events import CheckpointPermission, Tombstone, TrainingCompleted
from shared.stages import outbox
from shared.stages.ledger import tombstone_key
from tests.support.data.keys import add_key, secret
from tests.support.data.trained_models import add_trained, job_id
from tests.support.fakes.servers import Server
from tests.unit.api.conftest import Api, error_of

STEP = 4


@pytest.fixture
async def model(api: Api) -> str:
    return await add_trained(api.objects, checkpoint=STEP)


def path(model: str, permission: str | None = None) -> str:
    below = f"/v1/fine_tuning/checkpoints/{quote(model, safe=':')}/permissions"
    return below if permission is None else f"{below}/{permission}"


async def give(api: Api, model: str, *projects: str) -> list[str]:
    answer = await api.client.post(path(model), json={"project_ids": list(projects)})
    assert answer.status_code == 200, answer.text
    return [each["id"] for each in answer.json()["data"]]


async def training(api: Api) -> TrainingCompleted:
    result = await outbox.read(api.objects, job_id("one"), "trainer")
    assert result is not None
    event = result.event.event()
    assert isinstance(event, TrainingCompleted)
    return event


@pytest.fixture
async def official(api: Api) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, with real HTTP."""
    app: ASGIApp = api.client._transport.app  # type: ignore[attr-defined]
    async with (
        Server(app).running() as server,
        openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="key", max_retries=0) as client,
    ):
        yield client


@pytest.mark.parametrize("step", [None, STEP])
async def test_the_official_client_gives_lists_and_revokes(
    api: Api, model: str, official: openai.AsyncOpenAI, step: int | None
) -> None:
    name = model if step is None else f"{model}:ckpt-step-{step}"
    calls = official.fine_tuning.checkpoints.permissions

    created = [each async for each in calls.create(name, project_ids=["other", "third"])]
    listed = [each async for each in calls.list(name, order="ascending")]

    assert [(each.object, each.project_id) for each in created] == [
        ("checkpoint.permission", "other"),
        ("checkpoint.permission", "third"),
    ]
    assert {each.id for each in listed} == {each.id for each in created}
    assert all(each.id.startswith("cp_") and each.created_at == int(api.clock()) for each in created)
    assert await tuned_models.may_use(api.objects, await training(api), name, "other")
    other = f"{model}:ckpt-step-{STEP}" if step is None else model
    assert not await tuned_models.may_use(api.objects, await training(api), other, "other"), "it names one model"

    deleted = await calls.delete(created[0].id, fine_tuned_model_checkpoint=name)

    assert (deleted.id, deleted.deleted, deleted.object) == (created[0].id, True, "checkpoint.permission")
    assert [each.project_id async for each in calls.list(name)] == ["third"]
    assert not await tuned_models.may_use(api.objects, await training(api), name, "other")
    assert await tuned_models.may_use(api.objects, await training(api), name, "third")
    with pytest.raises(openai.NotFoundError):
        await calls.delete(created[0].id, fine_tuned_model_checkpoint=name)


async def test_pages_lead_to_the_end_in_both_orders(api: Api, model: str, official: openai.AsyncOpenAI) -> None:
    for number in range(25):
        api.clock.now += 1
        await give(api, model, f"p{number}")
    calls = official.fine_tuning.checkpoints.permissions
    names = [f"p{number}" for number in range(25)]

    assert [each.project_id async for each in calls.list(model, order="ascending")] == names
    assert [each.project_id async for each in calls.list(model)] == names[::-1]
    assert [each.project_id async for each in calls.list(model, limit=7, order="ascending")] == names
    assert [each.project_id async for each in calls.list(model, project_id="p3")] == ["p3"]
    page: dict[str, Any] = (await api.client.get(path(model), params={"limit": 2})).json()
    assert (page["object"], page["has_more"], page["last_id"]) == ("list", True, page["data"][1]["id"])
    await api.client.delete(path(model, page["last_id"]))
    rest = await api.get(path(model), after=page["last_id"], limit=100)
    assert (len(rest["data"]), rest["has_more"]) == (23, False), "a cursor may be revoked meanwhile"


async def test_who_asks_again_or_at_once_makes_no_second_one(api: Api, model: str) -> None:
    found = await asyncio.gather(*(give(api, model, "other", "other") for _ in range(10)))

    assert len({permission for each in found for permission in each}) == 1
    assert len((await api.get(path(model)))["data"]) == 1
    await api.client.delete(path(model, found[0][0]))
    again = await give(api, model, "other")
    assert again != found[0]
    assert len([key for key in api.objects.held if key.startswith("permissions/")]) == 2, "nothing is deleted"


async def test_revoking_again_is_no_error_for_a_client_that_lost_the_answer(api: Api, model: str) -> None:
    (permission,) = await give(api, model, "other")
    await api.client.delete(path(model, permission))

    again = await api.client.delete(path(model, permission), headers={"x-stainless-retry-count": "1"})

    assert (again.status_code, again.json()["deleted"]) == (200, True)


@pytest.mark.parametrize(("method", "body"), [("GET", None), ("POST", {"project_ids": ["other"]}), ("DELETE", None)])
async def test_what_is_not_there_is_404_and_what_is_another_projects_the_same(
    api: Api, model: str, method: str, body: dict[str, Any] | None
) -> None:
    tail = "cp_a" if method == "DELETE" else None
    for name in (model, f"{model}:ckpt-step-{STEP}", f"{model}:ckpt-step-9", "support", "ft:a/b:c::aaaaaaaa"):
        answer = await api.client.request(method, path(name, tail), json=body, headers={"openai-project": "other"})
        assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found")
    stone = Tombstone(prefix="x/", reason="", at=0.0).model_dump_json().encode()
    api.objects.add(tombstone_key("models", job_id("one")), stone)
    answer = await api.client.request(method, path(model, tail), json=body)
    assert (answer.status_code, error_of(answer)["code"]) == (404, "model_not_found"), "it was deleted"
    assert [key for key in api.objects.held if key.startswith("permissions/")] == []


@pytest.mark.parametrize("permission", ["cp_nothing", "cp_..", "x", "..%2Fcp_a", "cp_" + "a" * 2000])
async def test_an_unknown_permission_is_404(api: Api, model: str, permission: str) -> None:
    answer = await api.client.delete(path(model, permission))
    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "missing_required_parameter"),
        ({"project_ids": []}, "invalid_value"),
        ({"project_ids": "other"}, "invalid_type"),
        ({"project_ids": ["../x"]}, "invalid_value"),
        ({"project_ids": [""]}, "invalid_value"),
        ([], "invalid_type"),
    ],
)
async def test_a_body_without_projects_is_refused_by_field(api: Api, model: str, body: Any, code: str) -> None:
    answer = await api.client.post(path(model), json=body)
    assert answer.status_code == 400
    assert error_of(answer)["code"] == code
    assert (error_of(answer)["param"] or "").startswith("project_ids") or body == []


async def test_a_key_without_the_right_admin_is_refused(api: Api, model: str) -> None:
    await add_key(api.objects, "b", rights=("train", "serve"))
    headers = {"authorization": f"Bearer {secret('b')}"}
    for method, body in (("GET", None), ("POST", {"project_ids": ["x"]}), ("DELETE", None)):
        url = path(model, "cp_a" if method == "DELETE" else None)
        answer = await api.client.request(method, url, json=body, headers=headers)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_permissions")


async def test_a_document_that_cannot_be_read_hides_no_other(api: Api, model: str) -> None:
    (first,) = await give(api, model, "other")
    api.objects.add(tuned_models.permission_key(job_id("one"), first), b"{")
    assert (await api.client.delete(path(model, first))).status_code == 404
    (permission,) = await give(api, model, "other")
    assert permission != first

    assert [each["id"] for each in (await api.get(path(model)))["data"]] == [permission]
    found = CheckpointPermission.model_validate_json(
        api.objects.held[tuned_models.permission_key(job_id("one"), permission)].data
    )
    assert (found.owner, found.project_id, found.model) == ("default", "other", model)
