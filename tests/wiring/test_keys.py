"""API keys on the real object store: made on one service, used on the other, revoked while requests flow."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.inference.app import build
from shared.access.keyring import FRESH_SECONDS, PATIENCE_SECONDS
from shared.service import Context
from shared.store.objects import ObjectStore
from tests.support.embedded import Embedded
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.servers import unused_port
from tests.support.waiting import until

ROOT = "root"
WITHIN = 5.0
"""Seconds after which no service takes a revoked key."""


@dataclass
class Services:
    """Two replicas of the api, and the endpoint, each with a client of the store of its own."""

    first: httpx.AsyncClient
    second: httpx.AsyncClient
    endpoint: httpx.AsyncClient

    @property
    def all(self) -> dict[str, tuple[httpx.AsyncClient, str]]:
        return {
            "the api": (self.first, "/jobs"),
            "another api": (self.second, "/jobs"),
            "the endpoint": (self.endpoint, "/v1/models"),
        }

    async def make(self, **body: Any) -> dict[str, Any]:
        answer = await self.first.post("/keys", json={"name": "x", **body}, headers=bearer(ROOT))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def revoke(self, key: dict[str, Any]) -> None:
        assert (await self.first.delete(f"/keys/{key['id']}", headers=bearer(ROOT))).status_code == 200

    async def statuses(self, key: dict[str, Any]) -> dict[str, int]:
        answers = await asyncio.gather(
            *(client.get(path, headers=bearer(key["secret"])) for client, path in self.all.values())
        )
        return dict(zip(self.all, (answer.status_code for answer in answers), strict=True))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


async def open_services(stack: AsyncExitStack, parts: Embedded, folder: Path) -> Services:
    nobody = f"http://127.0.0.1:{unused_port()}"
    clients = []
    for name in ("first", "second"):
        objects = ObjectStore.connect(parts.settings.store)
        database = ProjectionDatabase(folder / f"{name}.sqlite3")
        stack.push_async_callback(database.close)
        projection = Projection(database, objects, discover_seconds=10)
        clients.append(make_app(Dependencies(database, projection, objects, FakeBus(), nobody), (ROOT,)))
    settings = parts.settings.model_copy(
        update={
            "vllm": parts.settings.vllm.model_copy(update={"url": nobody}),
            "api": parts.settings.api.model_copy(update={"url": nobody}),
            "inference": parts.settings.inference.model_copy(update={"adapter_dir": folder, "api_keys": (ROOT,)}),
        }
    )
    endpoint = build(Context(settings, ObjectStore.connect(settings.store), FakeBus()))
    assert endpoint.app is not None and endpoint.close is not None
    stack.push_async_callback(endpoint.close)
    opened = [
        await stack.enter_async_context(
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x.test", timeout=30)
        )
        for app in (*clients, endpoint.app)
    ]
    return Services(*opened)


@pytest.fixture
async def services(parts: Embedded, tmp_path: Path) -> AsyncIterator[Services]:
    async with AsyncExitStack() as stack:
        yield await open_services(stack, parts, tmp_path)


async def test_a_key_works_at_once_everywhere_and_nowhere_five_seconds_after_it_was_revoked(services: Services) -> None:
    loop = asyncio.get_running_loop()
    key = await services.make()
    assert set((await services.statuses(key)).values()) == {200}, "on its first use, on each of them"
    passed: dict[str, float] = {}
    revoked = asyncio.Event()

    async def flow(name: str) -> None:
        """Requests, one after the other, until a while after the key must be refused."""
        client, path = services.all[name]
        while not revoked.is_set() or loop.time() < began + WITHIN + 1:
            asked = loop.time()
            answer = await client.get(path, headers=bearer(key["secret"]))
            assert answer.status_code in (200, 401), answer.text
            if answer.status_code == 200:
                passed[name] = asked
            await asyncio.sleep(0.02)

    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for name in services.all:
            group.create_task(flow(name))
        await until(lambda: loop.time() > began + FRESH_SECONDS + 0.5 and len(passed) == 3, "some requests to pass")
        await services.revoke(key)
        began = loop.time()
        revoked.set()
    late = {name: at - began for name, at in passed.items()}
    assert max(late.values()) < WITHIN, late
    assert late["the api"] < 0.5, "where it was revoked, it is refused at once"


async def test_while_the_store_is_away_keys_that_are_known_serve_on(own_parts: Embedded, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        services = await open_services(stack, own_parts, tmp_path)
        key = await services.make()
        assert set((await services.statuses(key)).values()) == {200}
        own_parts.signal("weed", signal.SIGSTOP)  # it hangs
        await serves_on(services, key, seconds=8)
        own_parts.kill("weed")
        await serves_on(services, key, seconds=4)


async def serves_on(services: Services, key: dict[str, Any], seconds: float) -> None:
    """Send requests for so long. Each passes, and none waits for the store for long."""
    loop = asyncio.get_running_loop()
    until_ = loop.time() + seconds
    other_secret = key["secret"][:-43] + "s" * 43
    while loop.time() < until_:
        asked = loop.time()
        answer = await services.endpoint.get("/v1/nowhere", headers=bearer(key["secret"]))
        assert answer.status_code == 404, "it has passed"
        assert (await services.endpoint.get("/v1/nowhere", headers=bearer(other_secret))).status_code == 401
        assert loop.time() - asked < 2 * PATIENCE_SECONDS + 1
        await asyncio.sleep(0.1)
