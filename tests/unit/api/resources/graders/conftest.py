"""The api over HTTP on loopback, beside an inference endpoint whose answers a test decides."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response

from services.api.app import make_app
from services.api.resources.dependencies import Dependencies
from tests.support.fakes.servers import Server
from tests.unit.api.conftest import URL, Api

KEY = "a-key"


def answered(content: str | None, **message: Any) -> Response:
    """What the endpoint answers when its model says `content`."""
    finish_reason = message.pop("finish_reason", "stop")
    choice = {
        "index": 0,
        "finish_reason": finish_reason,
        "message": {"role": "assistant", "content": content, **message},
    }
    usage = {"prompt_tokens": 20, "completion_tokens": 4, "total_tokens": 24}
    return JSONResponse({"id": "x", "model": "the-model", "choices": [choice], "usage": usage})


def refused(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "type": "x", "param": None, "code": None}}, status)


@dataclass
class Endpoint:
    """An inference endpoint. `answer` decides; `bodies` and `headers` are those of all requests."""

    answer: Callable[[dict[str, Any]], Response] = lambda body: answered('{"result": 0.75}')
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            self.bodies.append(await request.json())
            self.headers.append(dict(request.headers))
            return self.answer(self.bodies[-1])

        return app


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    yield Endpoint()


@dataclass
class Graders:
    """The api at `url`."""

    url: str
    endpoint: Endpoint
    http: httpx.AsyncClient

    async def post(self, action: str, body: Any, **headers: str) -> httpx.Response:
        path = f"{self.url}/v1/fine_tuning/alpha/graders/{action}"
        return await self.http.post(path, json=body, headers={"authorization": f"Bearer {KEY}", **headers})

    async def run(
        self, grader: dict[str, Any], sample: str = "", item: dict[str, Any] | None = None, **headers: str
    ) -> dict[str, Any]:
        answer = await self.post("run", {"grader": grader, "model_sample": sample, "item": item}, **headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())


@pytest.fixture
async def graders(api: Api, endpoint: Endpoint) -> AsyncIterator[Graders]:
    async with Server(endpoint.app()).running() as inference:
        dependencies = Dependencies(
            api.database, api.projection, api.objects, api.bus, URL, inference_url=inference.url
        )
        async with (
            Server(make_app(dependencies, (KEY,))).running() as server,
            httpx.AsyncClient(timeout=60) as http,
        ):
            yield Graders(server.url, endpoint, http)
