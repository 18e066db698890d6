"""Both services over one store, each on a socket, and two projects that have one of everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.inference import app as inference
from shared.http import forward
from shared.http.forward import Forwarder, Other
from shared.service import Context
from shared.settings import ModelSettings, Settings
from tests.support.data.job_history import T0
from tests.support.data.keys import add_key, secret
from tests.support.data.project_things import Owner, Things
from tests.support.data.trained_models import BASE
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore
from tests.support.fakes.vllm import FakeVllm

RIGHTS = {"user": ("train", "serve"), "admin": ("admin",)}


@dataclass
class Project:
    """A project with its things. `name` is its id."""

    name: str
    things: Things

    def key(self, kind: str) -> str:
        """The secret of its key `user`, which may train and serve, or `admin`."""
        return secret(f"{self.name}{kind}")


@dataclass
class TwoProjects:
    """Both services, as clients without a key by their names, and what the projects `first` and `second` have."""

    objects: FakeStore
    apps: dict[str, FastAPI]
    services: dict[str, httpx.AsyncClient]
    first: Project
    second: Project


@dataclass
class _Late:
    """An app that is there only after its address is known."""

    app: FastAPI | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@asynccontextmanager
async def two_projects(folder: Path) -> AsyncIterator[TwoProjects]:
    """Run both services, and make all things of both projects."""
    async with AsyncExitStack() as stack:
        objects, late = FakeStore(clock=Clock(T0 + 3600)), _Late()
        for project in ("first", "second"):
            for kind, rights in RIGHTS.items():
                await add_key(objects, f"{project}{kind}", project=project, rights=rights)
        api_server = await stack.enter_async_context(Server(late).running())
        endpoint = await _open_inference(stack, folder, objects, api_server.url)
        endpoint_server = await stack.enter_async_context(Server(endpoint).running())
        late.app, projection = _open_api(stack, folder, objects, endpoint_server.url)

        async def client(url: str, key: str = "") -> httpx.AsyncClient:
            headers = {"authorization": f"Bearer {key}"} if key else {}
            return await stack.enter_async_context(httpx.AsyncClient(base_url=url, headers=headers, timeout=30))

        found: list[Project] = []
        for name in ("first", "second"):
            project = Project(name, {})
            user, admin = [await client(endpoint_server.url, project.key(kind)) for kind in RIGHTS]
            project.things = await Owner(name, user, admin, objects, projection).make_all()
            found.append(project)
        await projection.discover()
        apps = {"api": late.app, "inference": endpoint}
        services = {"api": await client(api_server.url), "inference": await client(endpoint_server.url)}
        yield TwoProjects(objects, apps, services, *found)


def _open_api(stack: AsyncExitStack, folder: Path, objects: FakeStore, url: str) -> tuple[FastAPI, Projection]:
    """`url`: of the inference service."""
    database = ProjectionDatabase(folder / "api.sqlite3")
    stack.push_async_callback(database.close)
    projection = Projection(database, objects, discover_seconds=10)
    settings = ModelSettings(id=BASE)
    dependencies = Dependencies(
        database, projection, objects, FakeBus(), "http://api.test", settings, inference_url=url
    )
    forwarder = Forwarder(Other("inference", url, "TUNESTREAM_INFERENCE__URL"), forward.MODELS)
    stack.push_async_callback(forwarder.close)
    return make_app(dependencies, (), forwarder=forwarder), projection


async def _open_inference(stack: AsyncExitStack, folder: Path, objects: FakeStore, url: str) -> FastAPI:
    """`url`: of the api service."""
    vllm = FakeVllm()
    await stack.enter_async_context(vllm.server.running())
    settings = {
        "model": {"id": BASE},
        "vllm": {"url": vllm.server.url},
        "api": {"url": url},
        "inference": {"adapter_dir": folder / "adapters"},
    }
    parts = inference.build(Context(Settings.model_validate(settings), objects, FakeBus()))
    assert parts.app is not None and parts.close is not None
    stack.push_async_callback(parts.close)
    for background in parts.background:
        stack.callback(asyncio.ensure_future(background()).cancel)
    return parts.app
