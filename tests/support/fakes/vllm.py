"""A fake vLLM without a model. Real HTTP on loopback, in the event loop of the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from tests.support.fakes.servers import Server

BASE_AT_VLLM = "acme/tiny-base"
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


class FakeVllm:
    """Answers the requests to vLLM that the inference service makes, and remembers them."""

    def __init__(self) -> None:
        self.healthy = True
        self.found_ill = asyncio.Event()
        """Set when a health check has failed."""
        self.adapters: dict[str, str] = {}
        """The adapters that are loaded: name to path."""
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.asked: list[dict[str, Any]] = []
        """The bodies of the requests for a generation."""
        self.probed: list[dict[str, Any]] = []
        """The bodies of the requests by which a deployment looks at the probabilities of tokens."""
        self.warmed: list[dict[str, Any]] = []
        """The bodies of the requests that let it compile its kernels."""
        self.cold = False
        """It refuses those."""
        self.tokens: list[int] | None = [1, 2, 3]
        """What it makes of every conversation; None: it does not say."""
        self.can_render = False
        """It was started with --enable-scale-out, so that it tells its tokens at /v1/chat/completions/render."""
        self.effect = True
        """An adapter changes the probabilities."""
        self.headers: list[dict[str, str]] = []
        self.breaks = 0
        """How many of the next generations end with a reset connection before their first byte."""
        self.breaks_midway = False
        self.deadly: str | None = None
        """It dies of a request that holds this text, and is back after a health check has found that."""
        self._starts_again = False
        self.deaths = 0
        self.cut = False
        """An answer that is not streamed ends before its end."""
        self.asking = asyncio.Event()
        """Set when a request for a generation has arrived."""
        self.first = asyncio.Event()
        """A generation sends its first chunk only when this is set. It is set at the start."""
        self.first.set()
        self.rest = asyncio.Event()
        """A generation sends the rest only when this is set. It is set at the start."""
        self.rest.set()
        self.hung_up = asyncio.Event()
        """Set when a client has disconnected in the middle of its generation."""
        self.error: tuple[int, dict[str, Any]] | None = None
        self.called: list[dict[str, Any]] = []
        """The tool calls of all further answers, instead of a text."""
        self.sleeping = False
        self.sleeps: list[dict[str, str]] = []
        """The parameters of every request to sleep."""
        self.asked_asleep = 0
        """How many generations were requested while it slept. A real vLLM would let them wait."""
        self.can_sleep = True
        self.server = Server(self._app())

    def _app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/health")
        async def health() -> Response:
            if self.healthy:
                return Response()
            self.found_ill.set()
            self.healthy, self._starts_again = self._starts_again, False
            return Response(status_code=503)

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            cards = [{"id": BASE_AT_VLLM, "parent": None}]
            return {"data": cards + [{"id": name, "parent": BASE_AT_VLLM} for name in self.adapters]}

        @app.post("/v1/load_lora_adapter")
        async def load(request: Request) -> Response:
            body = await request.json()
            name = body["lora_name"]
            self.loads.append(name)
            if name in self.adapters:
                return _refuse(400, f"The lora adapter '{name}' has already been loaded. If you want to …")
            self.adapters[name] = body["lora_path"]
            return Response("Success")

        @app.post("/v1/unload_lora_adapter")
        async def unload(request: Request) -> Response:
            name = (await request.json())["lora_name"]
            self.unloads.append(name)
            self.adapters.pop(name, None)
            return Response("Success")

        @app.post("/v1/chat/completions")
        @app.post("/v1/completions")
        async def generate(request: Request) -> Response:
            return await self._generate(request)

        @app.post("/v1/chat/completions/render")
        async def render(request: Request) -> Response:
            if not self.can_render:
                return _refuse(403, "Scale-out endpoints are disabled.")
            return self._said("token_ids")

        @app.post("/tokenize")
        async def tokenize(request: Request) -> Response:
            return self._said("tokens")

        @app.post("/sleep")
        async def sleep(request: Request) -> Response:
            if not self.can_sleep:
                return JSONResponse({"detail": "Not Found"}, 404)
            self.sleeps.append(dict(request.query_params))
            self.sleeping = True
            return Response()

        @app.post("/wake_up")
        async def wake_up() -> Response:
            self.sleeping = False
            return Response()

        @app.get("/is_sleeping")
        async def is_sleeping() -> Response:
            if not self.can_sleep:
                return JSONResponse({"detail": "Not Found"}, 404)
            return JSONResponse({"is_sleeping": self.sleeping})

        @app.get("/secret")
        @app.post("/v1/tokenize")
        async def secret() -> dict[str, str]:
            return {"secret": "of vLLM"}

        return app

    def _said(self, name: str) -> Response:
        if self.tokens is None:
            return JSONResponse({"detail": "Not Found"}, 404)
        return JSONResponse({name: self.tokens})

    def _probabilities(self, body: dict[str, Any]) -> Response:
        self.probed.append(body)
        changed = self.effect and body["model"] != BASE_AT_VLLM
        told = {"top_logprobs": [{"a": -0.5, "b": -1.25 if changed else -1.5}]}
        return JSONResponse({"choices": [{"index": 0, "text": "a", "logprobs": told}]})

    async def _generate(self, request: Request) -> Response:
        body = await request.json()
        if "logprobs" in body and "prompt" in body:
            return self._probabilities(body)
        if body.get("ignore_eos"):
            assert body["model"] in self.adapters, "only what is loaded can be warmed up"
            self.warmed.append(body)
            return _refuse(500, "no") if self.cold else JSONResponse(_completion(body["model"]))
        self.asked.append(body)
        self.asked_asleep += self.sleeping
        self.headers.append(dict(request.headers))
        self.asking.set()
        if self.deadly is not None and self.deadly in json.dumps(body):
            self._die()
            return Response()
        if self.breaks:
            self.breaks -= 1
            self.server.break_connections()
            return Response()
        if self.error is not None:
            return JSONResponse(self.error[1], self.error[0])
        if body["model"] != BASE_AT_VLLM and body["model"] not in self.adapters:
            return _refuse(404, f"The model `{body['model']}` does not exist.")
        if body.get("stream"):
            return StreamingResponse(self._events(body), media_type="text/event-stream")
        waiting = asyncio.create_task(self.first.wait())
        gone = asyncio.create_task(_disconnected(request))
        await asyncio.wait({waiting, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            self.hung_up.set()
        waiting.cancel()
        gone.cancel()
        if self.cut:
            return StreamingResponse(self._cut(), headers={"content-length": "100"})
        answer = _answer(body["model"], self.called) if "messages" in body else _completion(body["model"])
        return JSONResponse({**answer, "usage": USAGE})

    async def _cut(self) -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(0)  # so that it is sent
        self.server.break_connections()

    def _die(self) -> None:
        self.deaths += 1
        self.healthy = False
        self.adapters.clear()
        self.first.set()  # who waited is gone
        self.server.break_connections()
        self._starts_again = True

    async def _events(self, body: dict[str, Any]) -> AsyncIterator[str]:
        model = body["model"]
        options = body.get("stream_options") or {}
        try:
            await self.first.wait()
            for index, call in enumerate(self.called):
                for part in _parts(call):
                    yield _event(_chunk(model, {"tool_calls": [{"index": index, **part}]}))
            yield _event(_chunk(model, "one"))
            await self.rest.wait()
            if self.breaks_midway:
                self.server.break_connections()
            yield _event(_chunk(model, "two"))
            if options.get("include_usage"):
                usage = _event({**_chunk(model, ""), "choices": [], "usage": USAGE})
                yield usage[:20]  # a network may cut events anywhere
                yield usage[20:]
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.hung_up.set()
            raise


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _refuse(status: int, message: str) -> JSONResponse:
    # vLLM's codes are numbers
    error = {"message": message, "type": "NotFoundError", "param": None, "code": status}
    return JSONResponse({"error": error}, status)


def _answer(model: str, called: list[dict[str, Any]]) -> dict[str, Any]:
    message = {"role": "assistant", "content": None if called else "hello", "tool_calls": called}
    choices = [{"index": 0, "message": message, "finish_reason": "tool_calls" if called else "stop"}]
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model, "choices": choices}


def _completion(model: str) -> dict[str, Any]:
    choices = [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    return {"id": "cmpl-1", "object": "text_completion", "created": 1, "model": model, "choices": choices}


def _parts(call: dict[str, Any]) -> list[dict[str, Any]]:
    """A call as vLLM streams it: id and name first, then the arguments in pieces."""
    function = call["function"]
    pieces = [function["arguments"][:9], function["arguments"][9:]]
    named = {**call, "function": {"name": function["name"], "arguments": ""}}
    return [named, *({"function": {"arguments": piece}} for piece in pieces)]


def _chunk(model: str, said: str | dict[str, Any]) -> dict[str, Any]:
    delta = {"content": said} if isinstance(said, str) else said
    choices = [{"index": 0, "delta": delta, "finish_reason": None}]
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model, "choices": choices}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data)}\n\n"
