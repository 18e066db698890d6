"""Generation: the three routes of vLLM that the world may use, with the model's name looked up and every answer passed
through as it comes. Nothing else of vLLM can be reached from outside.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi import APIRouter, Request, Response
from starlette.requests import ClientDisconnect

from services.inference.adapters import Adapters
from services.inference.domain.usage import TAIL, usage_of, usage_of_stream
from services.inference.errors import (
    RETRY_AFTER,
    ApiError,
    EngineUnavailable,
    answer,
    envelope,
    translate,
)
from services.inference.exchange import CLIENT_GONE, GENERATION, Exchange, exchange
from services.inference.models import Models, Target
from services.inference.relay import ClientGone, Relayed, Upstream, open_upstream, unless_gone
from services.inference.stories import Stories
from services.inference.vllm import Vllm

MAX_BODY = 32 * 2**20  # bytes; a prompt of a million tokens is a tenth of it
# How long a request waits for a vLLM that starts. Longer than a restart on two cores takes (about 45 s).
PATIENCE = 90.0
CONTEXT_LENGTH = "maximum context length"


class Gateway:
    """Forwards a generation to vLLM; once more, if vLLM breaks before the first byte."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        vllm: Vllm,
        adapters: Adapters,
        models: Models,
        stories: Stories,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`patience`: seconds that a request waits for vLLM to be up."""
        self._client = client
        self._vllm = vllm
        self._adapters = adapters
        self._models = models
        self._stories = stories
        self._patience = patience

    def router(self) -> APIRouter:
        routes = APIRouter()
        for route in GENERATION:
            routes.add_api_route(route, self.generate, methods=["POST"])
        return routes

    async def generate(self, request: Request) -> Response:
        route = request.scope["path"]
        async with AsyncExitStack() as stack:
            current = stack.enter_context(exchange(route, request.state))
            try:
                body = await _read(request)
                target = await self._models.resolve(body["model"])
                asked_by = request.state.asked_by
                story = await self._stories.of(target.model, tuned=target.tuned, asked_by=asked_by)
                current.concerns(target.model, story)
                work = self._answer(stack, current, target, body)
                response = await unless_gone(request, work)
                if isinstance(response, Relayed):
                    response.resources = stack.pop_all()
            except (ClientGone, ClientDisconnect):
                response = Response(status_code=CLIENT_GONE)
            except Exception as error:
                response = answer(translate(error))
            current.status = response.status_code
            return response

    async def _answer(self, stack: AsyncExitStack, current: Exchange, target: Target, body: dict[str, Any]) -> Response:
        """The whole answer, or a stream of it that still needs what is on `stack`."""
        upstream = await self._ask(stack, current, target, body)
        current.first_byte()
        status = upstream.response.status_code
        headers = {"x-tunestream-model": target.model}
        if target.alias is not None:
            headers["x-tunestream-alias"] = target.alias
        if status >= 400:
            error = _error(status, await upstream.body(), current.route)
            error.headers = headers
            return answer(error)
        headers["content-type"] = upstream.response.headers.get("content-type", "application/json")
        if body.get("stream"):
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            return Relayed(_stream(upstream, current), status, headers)
        content = await upstream.body()
        current.count(usage_of(content))
        return Response(content, status, headers)

    async def _ask(self, stack: AsyncExitStack, current: Exchange, target: Target, body: dict[str, Any]) -> Upstream:
        """The answer's first chunk has come, with whatever status.

        Raises:
            EngineUnavailable: vLLM is not up, or asleep.
            ApiError: vLLM broke twice.
        """
        for last in (False, True):
            await stack.enter_async_context(self._vllm.using(self._patience))
            try:
                if target.tuned:
                    with current.inside():
                        await stack.enter_async_context(self._adapters.using(target.model))
                upstream = await open_upstream(self._client, self._request(current, target, body))
            except httpx.PoolTimeout:
                raise EngineUnavailable("Too many requests are under way") from None
            except httpx.ReadTimeout:
                raise ApiError(504, "The model took too long to answer.", code="upstream_timeout") from None
            except (httpx.TransportError, EngineUnavailable):
                self._vllm.suspect()
                self._adapters.forget(target.model)  # a server that was restarted comes back without
                continue
            stack.push_async_callback(upstream.response.aclose)
            status = upstream.response.status_code
            if status == 404 and target.tuned and not last:
                self._adapters.forget(target.model)
            elif status >= 500 and not await self._vllm.healthy():
                self._vllm.suspect()
            else:
                return upstream
        raise ApiError(
            502,
            "The model server broke twice while it worked on this request.",
            code="bad_gateway",
            headers={"retry-after": str(RETRY_AFTER)},
        )

    def _request(self, current: Exchange, target: Target, body: dict[str, Any]) -> httpx.Request:
        name = target.model if target.tuned else self._vllm.base_name
        return self._client.build_request(
            "POST",
            self._vllm.url + current.route,
            json={**body, "model": name},
            # identity: the answer's usage is read; no x-request-id: vLLM takes it for its own key, which must be unique
            headers={"accept-encoding": "identity", "traceparent": current.traceparent},
        )


async def _stream(upstream: Upstream, current: Exchange) -> AsyncIterator[bytes]:
    tail = b""
    try:
        async for chunk in upstream.chunks():
            tail = (tail + chunk)[-TAIL:]
            yield chunk
    except httpx.TransportError:
        # the status is sent long ago; the official clients raise an error for such an event
        current.status = 502
        error = envelope(ApiError(502, "The model server broke in the middle of the answer.", code="bad_gateway"))
        yield f"data: {json.dumps(error)}\n\n".encode()
    current.count(usage_of_stream(tail))


async def _read(request: Request) -> dict[str, Any]:
    """The request's body, an object with a `model`.

    Raises:
        ApiError: it is something else.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BODY:
            raise ApiError(413, f"The body is larger than {MAX_BODY >> 20} MiB.", code="body_too_large")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        where = f" (line {error.lineno}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
        raise ApiError(400, f"The body is not JSON{where}.", code="invalid_json") from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_request")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(
            400, "`model` is missing: name one of GET /v1/models.", code="missing_required_parameter", param="model"
        )
    return body


def _error(status: int, body: bytes, route: str) -> ApiError:
    """vLLM's error in OpenAI's words: its codes are numbers, and a route that it lacks has no envelope at all."""
    try:
        error = json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        if status == 404:
            return ApiError(400, f"The model served here does not support {route}.", code="unsupported_endpoint")
        return ApiError(status, f"The model server answered {status} without a reason.", code="bad_gateway")
    if status == 404:
        return ApiError(404, message, code="model_not_found", param="model")
    code = "context_length_exceeded" if CONTEXT_LENGTH in message else None
    return ApiError(status, message, code=code, param=param if isinstance(param, str) else None)
