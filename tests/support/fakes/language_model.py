"""A language model that answers by rule, behind an OpenAI-shaped HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from tests.support.fakes.servers import Server


@dataclass
class FakeModel:
    """An OpenAI-shaped server. `models` maps the id of a model to the function that answers the last message."""

    models: dict[str, Callable[[str], str]]
    failures: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    """Status and headers of the errors that the first requests get, one error for each request."""
    context_chars: int = 10**9
    """A request gets an error if its prompt, in characters, plus `max_tokens` is larger than this."""
    tool_parser: bool = True
    finish_reason: str = "stop"
    always_down: bool = False
    problems: dict[str, str] | None = None
    """What /health/ready says is wrong; None: the server has no such route."""
    answers: int | None = None
    """How many requests are answered before the server is down for good; None: all."""
    sleeps: int = 0
    """How many of the first requests get the answer that the model sleeps."""
    room: Any = None
    """What the cards of its models say as `background_requests`; None: it has no cards."""
    meeting: int = 0
    """The first requests are answered only once so many are under way."""
    aliases: dict[str, str] = field(default_factory=dict)
    """The exact id of the model that each alias names."""
    slow: dict[str, float] = field(default_factory=dict)
    """By model, how many seconds an answer takes."""
    finish_reasons: dict[str, str] = field(default_factory=dict)
    """By model, where it is not `finish_reason`."""
    refuses: frozenset[str] = frozenset()
    """Parameters that requests may not have."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    met: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> FastAPI:
        app = FastAPI()
        app.post("/v1/chat/completions")(self._chat)
        app.post("/v1/completions")(self._completions)
        app.get("/v1/models/{model:path}")(self._card)
        app.get("/health/ready")(self._ready)
        return app

    async def _card(self, model: str) -> JSONResponse:
        if model in self.aliases:
            return JSONResponse({"id": model, "object": "model", "root": self.aliases[model]})
        if self.room is None or model not in self.models:
            return _error(404, f"The model `{model}` does not exist.")
        return JSONResponse({"id": model, "object": "model", "background_requests": self.room})

    async def _ready(self) -> JSONResponse:
        if self.problems is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        return JSONResponse({"problems": self.problems}, 503 if self.problems else 200)

    async def _chat(self, request: Request) -> Response:
        body = await request.json()
        if body.get("tools") and body.get("tool_choice") == "auto" and not self.tool_parser:
            return _error(400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set')
        said = body["messages"][-1]["content"]
        length = len("".join(str(message.get("content")) for message in body["messages"]))
        return await self._answer(
            request, body, said, length, lambda text: {"message": {"role": "assistant", "content": text}}
        )

    async def _completions(self, request: Request) -> Response:
        body = await request.json()
        return await self._answer(request, body, body["prompt"], len(body["prompt"]), lambda text: {"text": text})

    async def _answer(
        self, request: Request, body: dict[str, Any], said: str, length: int, choice: Callable[[str], dict[str, Any]]
    ) -> Response:
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if self.under_way >= self.meeting:
            self.met.set()
        await self.met.wait()
        for _ in range(5):  # so that requests can meet here
            await asyncio.sleep(0)
        self.under_way -= 1
        if self.sleeps:
            self.sleeps -= 1
            return _error(503, "A training has the GPU", {"retry-after": "30"}, code="model_sleeping")
        if self.answers is not None:
            self.always_down = self.answers == 0
            self.answers = max(0, self.answers - 1)
        if self.always_down:
            return _error(503, "loading")
        if self.failures:
            status, headers = self.failures.pop(0)
            return _error(status, "try later", headers)
        if body["model"] not in self.models:
            return _error(404, f"The model `{body['model']}` does not exist.")
        if length + body.get("max_tokens", 0) > self.context_chars:
            return _error(400, f"This model's maximum context length is {self.context_chars} tokens.")
        if seconds := self.slow.get(body["model"]):
            await asyncio.sleep(seconds)
        if self.refuses & body.keys():
            return _error(400, f"Unsupported parameter: '{min(self.refuses & body.keys())}'.")
        text = self.models[body["model"]](said)
        finish_reason = self.finish_reasons.get(body["model"], self.finish_reason)
        if body.get("stream"):
            return _streamed(text, finish_reason, {"prompt_tokens": length, "completion_tokens": len(text)})
        return JSONResponse(
            {
                "choices": [{"index": 0, "finish_reason": finish_reason, **choice(text)}],
                "usage": {"prompt_tokens": length, "completion_tokens": len(text)},
            }
        )


def _streamed(text: str, finish_reason: str, usage: dict[str, int]) -> Response:
    half = len(text) // 2
    events: list[dict[str, Any]] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        *({"choices": [{"index": 0, "delta": {"content": part}, "text": part}]} for part in (text[:half], text[half:])),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]},
        {"choices": [], "usage": usage},
    ]
    lines = [f"data: {json.dumps(event)}\n\n" for event in events]
    return Response("".join([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


def _error(status: int, message: str, headers: dict[str, str] | None = None, code: str | None = None) -> JSONResponse:
    error = {"message": message, "type": "x", "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=headers)


@contextlib.asynccontextmanager
async def serve(model: FakeModel) -> AsyncIterator[str]:
    """The URL of a real HTTP server on a free port."""
    async with Server(model.app()).running() as server:
        yield server.url
