"""What belongs to a project does not exist for another one, on any route; and whoever is given a permission may use
exactly what it names."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.inference.registry import watched
from shared.access.tuned_models import model_key_name, permission_key
from shared.events import CheckpointPermission, StageResult
from shared.stages import outbox
from shared.stages.ledger import deployment_key, result_key
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service
from tests.unit.inference.test_work import attempt

STEP = 4
ONE, OTHER = {"openai-project": "one"}, {"openai-project": "other"}
NOBODYS = "ft:tiny-base:tunestream:support:zzzzzzzz"
HELLO = [{"role": "user", "content": "hi"}]


async def give(objects: FakeStore, name: str, project: str) -> str:
    """Let the job named `name` be of `project`. Returns the id of its model."""
    model = await add_trained(objects, name, checkpoint=STEP)
    key = result_key(job_id(name), "trainer")
    result = StageResult.model_validate_json(objects.held[key].data)
    event = result.event.event().model_copy(update={"project": project})
    changed = outbox.result_of(job_id(name), "trainer", 1, "test", "completed", event, 1000.0)
    objects.add(key, changed.model_dump_json().encode())
    return model


async def permit(objects: FakeStore, model: str, name: str, project: str, *, step: int | None = None) -> str:
    document = CheckpointPermission(
        permission_id=f"cp_{project}", model=model, owner="one", project_id=project, created_at=1.0
    )
    key = permission_key(model_key_name(job_id(name), step), document.permission_id)
    objects.add(key, document.model_dump_json().encode())
    return key


def revoke(objects: FakeStore, key: str) -> None:
    document = CheckpointPermission.model_validate_json(objects.held[key].data)
    objects.add(key, document.model_copy(update={"revoked_at": 2.0}).model_dump_json().encode())


async def chat(service: ServiceUnderTest, model: str, project: dict[str, str]) -> httpx.Response:
    body = {"model": model, "messages": HELLO}
    return await service.http.post("/v1/chat/completions", json=body, headers=project)


async def listed(service: ServiceUnderTest, project: dict[str, str]) -> list[str]:
    answer = await service.http.get("/v1/models", headers=project)
    return [card["id"] for card in answer.json()["data"]]


ROUTES = [
    ("POST", "/v1/chat/completions", {"messages": HELLO}),
    ("POST", "/v1/completions", {"prompt": "hi"}),
    ("POST", "/v1/embeddings", {"input": "hi"}),
    ("GET", "/v1/models/{name}", None),
    ("DELETE", "/v1/models/{name}", None),
    ("GET", "/deployments/{name}", None),
    ("POST", "/deployments/new", {}),
    ("POST", "/deployments/{name}/rollback", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
@pytest.mark.parametrize("kind", ["model", "checkpoint", "alias"])
async def test_what_another_project_has_is_answered_as_what_nobody_has(
    service: ServiceUnderTest, kind: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    model = await give(service.objects, "mine", "one")
    deployed = await service.http.post("/deployments/support", json={"model": model}, headers=ONE)
    assert deployed.status_code == 200
    name = {"model": model, "checkpoint": f"{model}:ckpt-step-{STEP}", "alias": "support"}[kind]
    nobody = {"model": f"{model[:-8]}aaaaaaaa", "checkpoint": f"{model}:ckpt-step-9", "alias": "suppork"}[kind]
    assert len({(await chat(service, each, ONE)).status_code for each in (name,)} | {200}) == 1

    answers = []
    for asked in (name, nobody):
        sent = None if body is None else {"model": asked, **body}
        answer = await service.http.request(method, path.format(name=asked), json=sent, headers=OTHER)
        error = answer.json()["error"]
        answers.append((answer.status_code, error["code"], error["message"].replace(asked, "…")))

    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    assert answers[0][1] in ("model_not_found", "alias_not_found")
    assert (await service.http.get("/deployments/support", headers=ONE)).json()["current"]["model"] == model
    assert [key for key in service.objects.held if key.startswith("deleted/")] == []


async def test_each_project_lists_its_own_and_the_base(service: ServiceUnderTest) -> None:
    mine, theirs = await give(service.objects, "mine", "one"), await give(service.objects, "theirs", "other")
    old = await add_trained(service.objects, "old")  # a result of a version without projects
    for model, project in ((mine, ONE), (theirs, OTHER), (old, {})):
        answer = await service.http.post("/deployments/support", json={"model": model}, headers=project)
        assert answer.json()["project"] == project.get("openai-project", "default")

    assert await listed(service, ONE) == [BASE, mine, "support"]
    assert await listed(service, OTHER) == [BASE, theirs, "support"]
    assert await listed(service, {}) == [BASE, old, "support"]
    assert await listed(service, {"openai-project": "third"}) == [BASE]
    for model, project in ((mine, ONE), (theirs, OTHER), (old, {})):
        assert (await chat(service, "support", project)).json()["model"] == model
        assert (await service.http.get("/v1/models/support", headers=project)).json()["root"] == model
        deployments = (await service.http.get("/deployments", headers=project)).json()["data"]
        assert [each["current"]["model"] for each in deployments] == [model]
    assert (await chat(service, BASE, OTHER)).status_code == 200
    keys = [key for key in service.objects.held if key.startswith("deployments/")]
    assert sorted(keys) == sorted(deployment_key("support", project) for project in ("default", "one", "other"))


async def test_a_promotion_goes_to_the_project_of_its_job(service: ServiceUnderTest) -> None:
    mine, theirs = await give(service.objects, "one", "one"), await give(service.objects, "two", "other")
    await service.work(await attempt(service.objects, "one", project="one"))
    await service.work(await attempt(service.objects, "two", project="other"))

    assert (await chat(service, "support", ONE)).json()["model"] == mine
    assert (await chat(service, "support", OTHER)).json()["model"] == theirs
    assert (await chat(service, "support", {})).status_code == 404


@pytest.mark.parametrize("project", ["../default", "a/b", "..", "x" * 65, "%2e%2e", "é", "-a"])
async def test_an_odd_project_is_none(service: ServiceUnderTest, project: str) -> None:
    headers = {"openai-project": project.encode()}
    await service.http.post("/deployments/support", json={"model": BASE})

    asked = {"model": "support", "messages": HELLO}
    for path, body in (("/v1/chat/completions", asked), ("/deployments/mine", {"model": BASE})):
        answer = await service.http.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_project")
    assert [key for key in service.objects.held if key.startswith("deployments/")] == ["deployments/support.json"]


# --- permissions ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def eager(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServiceUnderTest]:
    """The service, which asks for news at every request."""
    monkeypatch.setattr(watched, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(watched, "STALE_SECONDS", 0.0)
    async with running_service(tmp_path, objects, clock) as opened:
        yield opened


async def test_a_permission_lets_one_project_use_one_model_until_it_is_revoked(eager: ServiceUnderTest) -> None:
    model = await give(eager.objects, "mine", "one")
    checkpoint = f"{model}:ckpt-step-{STEP}"
    key = await permit(eager.objects, checkpoint, "mine", "other", step=STEP)

    assert (await chat(eager, checkpoint, OTHER)).json()["model"] == checkpoint
    assert (await eager.http.get(f"/v1/models/{checkpoint}", headers=OTHER)).json()["id"] == checkpoint
    assert await listed(eager, OTHER) == [BASE, checkpoint]
    assert (await chat(eager, model, OTHER)).status_code == 404, "it names the checkpoint alone"
    assert (await chat(eager, checkpoint, {"openai-project": "third"})).status_code == 404
    assert (await eager.http.delete(f"/v1/models/{checkpoint}", headers=OTHER)).status_code == 404
    assert (await eager.http.post("/deployments/theirs", json={"model": checkpoint}, headers=OTHER)).status_code == 200

    revoke(eager.objects, key)

    async def gone() -> bool:
        return (await chat(eager, checkpoint, OTHER)).status_code == 404

    await until(gone, "the permission is revoked", 5)
    assert (await chat(eager, "theirs", OTHER)).status_code == 404
    assert await listed(eager, OTHER) == [BASE, "theirs"]
    assert (await chat(eager, checkpoint, ONE)).status_code == 200


async def test_permissions_are_served_as_they_were_while_the_store_is_away(eager: ServiceUnderTest) -> None:
    model = await give(eager.objects, "mine", "one")
    await permit(eager.objects, model, "mine", "other")
    assert (await chat(eager, model, OTHER)).status_code == 200

    eager.objects.available = False

    for _ in range(3):
        assert (await chat(eager, model, OTHER)).status_code == 200
        third, nobodys = [await chat(eager, each, {"openai-project": "third"}) for each in (model, NOBODYS)]
        assert third.status_code == nobodys.status_code == 503, "as for a model that does not exist"


async def test_a_permission_that_cannot_be_read_gives_nothing_and_hides_nothing(eager: ServiceUnderTest) -> None:
    mine, more = await give(eager.objects, "mine", "one"), await give(eager.objects, "more", "one")
    await permit(eager.objects, mine, "mine", "other")
    eager.objects.add(permission_key(job_id("more"), "cp_x"), b"{")

    assert [(await chat(eager, model, OTHER)).status_code for model in (mine, more)] == [200, 404]


async def test_many_requests_list_tombstones_and_permissions_once_a_second(service: ServiceUnderTest) -> None:
    model = await give(service.objects, "mine", "one")
    await permit(service.objects, model, "mine", "other")
    assert (await chat(service, model, OTHER)).status_code == 200
    service.objects.calls.clear()

    for _ in range(50):
        assert (await chat(service, model, OTHER)).status_code == 200

    lists = [
        key for name, key in service.objects.calls if name == "list" and key in ("deleted/models/", "permissions/")
    ]
    assert len(lists) <= 6, "50 requests take less than three seconds"
