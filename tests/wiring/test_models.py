"""Aliases, permissions and deleted models on the real store: two replicas of inference and an api see the same."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.janitor.tombstones import Tombstones
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from shared.events import JobProgress, StageResult
from shared.stages import outbox
from shared.stages.ledger import deployment_key, result_key
from shared.store.objects import ObjectStore
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.embedded import Embedded
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service

pytestmark = pytest.mark.timeout(120)

STEP = 4
IN_TIME = 5.0
"""Seconds within which every replica obeys."""


@dataclass
class Stack:
    """Two replicas of inference, and the api."""

    objects: ObjectStore
    replicas: list[ServiceUnderTest]
    api: httpx.AsyncClient

    async def chat(self, replica: int, model: str, project: str) -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        http = self.replicas[replica].http
        return (await http.post("/v1/chat/completions", json=body, headers={"openai-project": project})).status_code

    async def soon(self, model: str, project: str, status: int) -> None:
        """Every replica answers with `status` in time."""
        began = time.monotonic()
        for replica in range(2):

            async def so(replica: int = replica) -> bool:
                return await self.chat(replica, model, project) == status

            await until(so, f"replica {replica} answers {status}", IN_TIME + 5)
        assert time.monotonic() - began < IN_TIME


@pytest.fixture
async def stack(own_parts: Embedded, tmp_path: Path) -> AsyncIterator[Stack]:
    objects = own_parts.objects
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(running_service(tmp_path / name, cast(FakeStore, objects), Clock()))
            for name in ("one", "two")
        ]
        database = ProjectionDatabase(tmp_path / "api.sqlite3")
        stack.push_async_callback(database.close)
        projection = Projection(database, objects, discover_seconds=10)
        app = make_app(Dependencies(database, projection, objects, FakeBus(), "http://api.test"), ())
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://api.test")
        yield Stack(objects, replicas, await stack.enter_async_context(client))


async def add_model(objects: ObjectStore, name: str, project: str) -> str:
    """A tuned model with a checkpoint, whose job has ended."""
    model = await add_trained(cast(FakeStore, objects), name, checkpoint=STEP)
    key = result_key(job_id(name), "trainer")
    found = await objects.get(key)
    assert found is not None
    event = StageResult.model_validate_json(found[0]).event.event().model_copy(update={"project": project})
    result = outbox.result_of(job_id(name), "trainer", 1, "test", "completed", event, 1000.0)
    await objects.replace(key, result.model_dump_json().encode(), found[1])
    ended = JobProgress(job_id=job_id(name), stage="inference", state="not_promoted", message="")
    await outbox.commit(objects, outbox.result_of(job_id(name), "inference", 1, "test", "completed", ended, 1000.0))
    return model


async def certain() -> None:
    """The lease of a test without one."""


async def test_two_replicas_obey_permissions_aliases_and_deletions(stack: Stack) -> None:
    one, two = await add_model(stack.objects, "one", "one"), await add_model(stack.objects, "two", "two")
    checkpoint = f"{one}:ckpt-step-{STEP}"
    for model, project in ((one, "one"), (two, "two")):
        for replica in range(2):
            assert await stack.chat(replica, model, project) == 200
            assert await stack.chat(replica, model, "default") == 404

    # one alias in two projects, and an old one in the default project
    old = {"alias": "support", "current": {"model": BASE, "job_id": "", "at": 1.0}}
    await stack.objects.create(deployment_key("support"), str(old).replace("'", '"').encode())
    for model, project in ((one, "one"), (two, "two")):
        headers = {"openai-project": project}
        answer = await stack.replicas[0].http.post("/deployments/support", json={"model": model}, headers=headers)
        assert answer.status_code == 200
    for model, project in ((one, "one"), (two, "two"), (BASE, "default")):
        card = await stack.replicas[1].http.get("/v1/models/support", headers={"openai-project": project})
        assert card.json()["root"] == model

    # a permission, given at the api
    path = f"/v1/fine_tuning/checkpoints/{checkpoint}/permissions"
    mine: dict[str, Any] = {"headers": {"openai-project": "one"}}
    given = (await stack.api.post(path, json={"project_ids": ["two"]}, **mine)).json()["data"]
    await stack.soon(checkpoint, "two", 200)
    assert await stack.chat(0, one, "two") == 404
    assert (await stack.api.delete(f"{path}/{given[0]['id']}", **mine)).json()["deleted"] is True
    await stack.soon(checkpoint, "two", 404)
    assert await stack.chat(0, checkpoint, "one") == 200

    # a deletion, at one replica
    refused = await stack.replicas[0].http.delete(f"/v1/models/{one}", **mine)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "model_deployed")
    assert (await stack.replicas[0].http.delete(f"/v1/models/{checkpoint}", **mine)).status_code == 200
    assert await stack.chat(0, checkpoint, "one") == 404, "at once where it was asked for"
    await stack.soon(checkpoint, "one", 404)
    assert (await stack.api.get(path, **mine)).status_code == 404
    await Tombstones(stack.objects).carry_out(certain)
    prefix = f"jobs/{job_id('one')}/trainer/attempt-1/"
    left = [entry.key for entry in await stack.objects.list(prefix)]
    assert left and all(key.startswith(f"{prefix}adapter/") for key in left)
    assert [entry.key for entry in await stack.objects.list("deleted/")] == [
        f"deleted/models/{job_id('one')}-ckpt-step-{STEP}.json"
    ]
    await stack.soon(one, "one", 200)
