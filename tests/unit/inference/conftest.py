"""The whole inference service, composed as in production, with a real HTTP client, a fake vLLM and a fake api
service."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from services.inference import app as composition
from services.inference.gateway.gateway import Gateway
from services.inference.trial import Trial
from services.inference.vllm import server as vllm_module
from services.inference.work import DeployWork
from shared.http import health
from shared.service import Context, Parts
from shared.settings import Settings
from tests.support.data.trained_models import BASE
from tests.support.fakes.api import FakeApi
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import Server
from tests.support.fakes.store import FakeStore
from tests.support.fakes.vllm import FakeVllm

KEY = "key"
PATIENCE, IMPATIENT = 20.0, 0.3
"""Seconds for which requests in tests wait for a vLLM that is down: longer than a busy machine takes to see that it is
up again; and so short that a test can wait until it is given up."""


@dataclass
class ServiceUnderTest:
    """The inference service, the fakes that it talks to, and a client of it."""

    vllm: FakeVllm
    api: FakeApi
    objects: FakeStore
    clock: Clock
    parts: Parts
    http: httpx.AsyncClient
    folder: Path

    @functools.cached_property
    def client(self) -> openai.AsyncOpenAI:
        """The official client of the same endpoint."""
        http = openai.DefaultAsyncHttpxClient(verify=False)
        return openai.AsyncOpenAI(base_url=f"{self.http.base_url}/v1", api_key=KEY, max_retries=0, http_client=http)

    @property
    def work(self) -> DeployWork:
        assert isinstance(self.parts.work, DeployWork)
        return self.parts.work

    async def chat(self, model: str, **more: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
        return await self.http.post("/v1/chat/completions", json=body)


@asynccontextmanager
async def running_service(
    folder: Path, objects: FakeStore, clock: Clock, **settings: Any
) -> AsyncIterator[ServiceUnderTest]:
    """Run the service. `settings`: sections that differ from the defaults of these tests."""
    async with AsyncExitStack() as stack:
        vllm, api = FakeVllm(), FakeApi()
        for server in (vllm.server, api.server):
            await stack.enter_async_context(server.running())
        given = {
            "model": {"id": BASE} | settings.get("model", {}),
            "vllm": {"url": vllm.server.url} | settings.get("vllm", {}),
            "inference": {"adapter_dir": folder, "url": "http://tunestream.test", "api_keys": (KEY,)}
            | settings.get("inference", {}),
            "api": {"url": api.server.url},
            "gpu": settings.get("gpu", {}),
            "render": settings.get("render", {}),
            "retention": settings.get("retention", {}),
            "stage": {"poll_seconds": 0.01},
        }
        context = Context(Settings.model_validate(given), objects, FakeBus())
        parts = composition.build(context)
        assert parts.app is not None and parts.close is not None
        health.mount(parts.app, parts.checks)
        tasks = [asyncio.create_task(_run(background)) for background in parts.background]
        stack.push_async_callback(parts.close)
        for task in tasks:
            stack.callback(task.cancel)
        server = await stack.enter_async_context(Server(parts.app).running())
        headers = {"authorization": f"Bearer {KEY}"}
        client = httpx.AsyncClient(base_url=server.url, verify=False, timeout=60, headers=headers)
        http = await stack.enter_async_context(client)
        opened = ServiceUnderTest(vllm, api, objects, clock, parts, http, folder)
        yield opened
        if "client" in vars(opened):
            await opened.client.close()


async def _run(background: Any) -> None:
    await background()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_module, "POLL_STARTING", 0.01)
    _wait_for(monkeypatch, PATIENCE)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of a vLLM that stays down."""
    _wait_for(monkeypatch, IMPATIENT)


def _wait_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(composition, "Gateway", functools.partial(Gateway, patience=seconds))
    monkeypatch.setattr(composition, "Trial", functools.partial(Trial, patience=seconds))


@pytest.fixture
async def service(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[ServiceUnderTest]:
    async with running_service(tmp_path, objects, clock) as opened:
        yield opened
