"""The three routes of vLLM that clients may use. The gateway finds the model that the client named, and passes the
answer on as it comes. No other route of vLLM can be reached from outside.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from services.inference.domain.usage import StreamedUsage, ask_for_usage, usage_of
from services.inference.errors import ERRORS, RETRY_AFTER, VllmUnavailable
from services.inference.gateway.admission import Admission
from services.inference.gateway.exchange import CLIENT_GONE, GENERATION, Exchange, exchange
from services.inference.gateway.relay import (
    ClientGone,
    ScopedResponse,
    Upstream,
    open_upstream,
    unless_gone,
)
from services.inference.registry.adapters import Adapters
from services.inference.registry.first_requests import FirstRequests
from services.inference.registry.models import Models, Target
from services.inference.vllm.server import Vllm
from shared import strict_json
from shared.http.errors import ApiError
from shared.strict_json import InvalidJson

PATIENCE = 90.0
"""Seconds that a request waits while vLLM starts. A restart on two cores takes about 45 s."""
BODY_LIMIT = 32 * 2**20
"""Bytes of a request. A prompt of a million tokens needs about a tenth of it."""
_WAIT = re.compile(r'(?:^|[,;\s])wait\s*=\s*"?(\d{1,6})', re.IGNORECASE)
CONTEXT_LENGTH = "maximum context length"
NO_TOOL_PARSER = "--tool-call-parser"
"""The option that vLLM 0.26 and 0.32 name when they are asked for tool calls and have no parser."""


class Gateway:
    """Forwards a request for a generation to vLLM, and forwards it once more if vLLM breaks before the first byte."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        vllm: Vllm,
        adapters: Adapters,
        models: Models,
        first_requests: FirstRequests,
        admission: Admission,
        *,
        patience: float = PATIENCE,
    ) -> None:
        """`patience`: seconds that a request waits for vLLM to be up."""
        self._client = client
        self._vllm = vllm
        self._adapters = adapters
        self._models = models
        self._first_requests = first_requests
        self._admission = admission
        self._patience = patience

    def router(self) -> APIRouter:
        routes = APIRouter()
        for route in GENERATION:
            routes.add_api_route(route, self.generate, methods=["POST"])
        return routes

    async def generate(self, request: Request) -> Response:
        return ScopedResponse(partial(self._respond, request))

    async def _respond(self, request: Request, stack: AsyncExitStack) -> Response:
        """The response, whatever it is. `stack` holds the connection to vLLM open for it."""
        current = stack.enter_context(exchange(request.scope["path"], request.state))
        current.patience = min(self._patience, preferred_wait(request.headers.get("prefer", "")))
        try:
            stack.enter_context(self._admission.slot())
            body = await _read(request)
            target = await self._models.resolve(body["model"])
            asked_by = request.state.asked_by
            job_trace = await self._first_requests.job_trace(target.model, tuned=target.tuned, asked_by=asked_by)
            current.begin(target.model, job_trace)
            response = await unless_gone(request, self._answer(stack, current, target, body))
        except (ClientGone, ClientDisconnect):
            response = Response(status_code=CLIENT_GONE)
        except Exception as error:
            response = ERRORS.answer(error, request.scope).response()
        current.status = response.status_code
        return response

    async def _answer(self, stack: AsyncExitStack, current: Exchange, target: Target, body: dict[str, Any]) -> Response:
        """The whole answer, or a stream of it from the connection that `stack` holds open."""
        change = ask_for_usage(body)
        upstream = await stack.enter_async_context(self._upstream(current, target, body | (change or {})))
        current.first_byte()
        status = upstream.response.status_code
        headers = {"x-tunestream-model": target.model}
        if target.alias is not None:
            headers["x-tunestream-alias"] = quote(target.alias, safe="")  # a header is ASCII
        if status >= 400:
            error = _error(status, await upstream.body(), current.route, target.model)
            error.headers = headers
            return error.response()
        headers["content-type"] = upstream.response.headers.get("content-type", "application/json")
        if body.get("stream"):
            headers |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
            usage = StreamedUsage(hidden=change is not None)
            return StreamingResponse(_stream(upstream, current, usage), status, headers)
        content = await upstream.body()
        current.count(usage_of(content))
        return Response(content, status, headers)

    @asynccontextmanager
    async def _upstream(self, current: Exchange, target: Target, body: dict[str, Any]) -> AsyncIterator[Upstream]:
        """vLLM's answer, with whatever status. vLLM, the adapter and the connection are in use until the block is left.

        Raises:
            VllmUnavailable: vLLM is not up, or asleep.
            ApiError: vLLM broke twice.
        """
        for last in (False, True):
            async with AsyncExitStack() as attempt:
                upstream = await self._try(attempt, current, target, body, last=last)
                if upstream is not None:
                    yield upstream
                    return
        raise ApiError(
            502,
            "The model server broke twice while it worked on this request.",
            code="bad_gateway",
            headers={"retry-after": str(RETRY_AFTER)},
        )

    async def _try(
        self, attempt: AsyncExitStack, current: Exchange, target: Target, body: dict[str, Any], *, last: bool
    ) -> Upstream | None:
        """vLLM's answer, of which the first chunk has come. None if vLLM broke, or has lost the adapter."""
        await attempt.enter_async_context(self._vllm.using(current.patience))
        try:
            if target.tuned:
                with current.as_parent():
                    await attempt.enter_async_context(self._adapters.using(target.model))
            request = self._request(current, target, body)
            upstream = await attempt.enter_async_context(open_upstream(self._client, request))
        except httpx.PoolTimeout:
            raise VllmUnavailable("Too many requests are under way") from None
        except httpx.ReadTimeout:
            raise ApiError(504, "The model took too long to answer.", code="upstream_timeout") from None
        except (httpx.TransportError, VllmUnavailable):
            self._vllm.suspect()
            self._adapters.forget(target.model)  # a restarted server comes back without it
            return None
        status = upstream.response.status_code
        if status == 404 and target.tuned and not last:
            self._adapters.forget(target.model)
            return None
        if status >= 500 and not await self._vllm.healthy():
            self._vllm.suspect()
            return None
        return upstream

    def _request(self, current: Exchange, target: Target, body: dict[str, Any]) -> httpx.Request:
        name = target.model if target.tuned else self._vllm.base_name
        return self._client.build_request(
            "POST",
            self._vllm.url + current.route,
            json={**body, "model": name},
            # identity, because the usage is read from the answer; no x-request-id, because vLLM uses it as a key of
            # its own, which must be unique
            headers={"accept-encoding": "identity", "traceparent": current.traceparent},
        )


def preferred_wait(prefer: str) -> float:
    """How many seconds a client wants to wait at most, by its `Prefer` header (RFC 7240); infinite if it does not
    say."""
    found = _WAIT.search(prefer)
    return float(found[1]) if found else math.inf


async def _stream(upstream: Upstream, current: Exchange, usage: StreamedUsage) -> AsyncIterator[bytes]:
    try:
        async for chunk in upstream.chunks():
            if passed := usage.pass_on(chunk):
                yield passed
        if rest := usage.rest():
            yield rest
    except httpx.TransportError:
        # the status has been sent already; the official clients raise an error for such an event
        current.status = 502
        broken = ApiError(502, "The model server broke in the middle of the answer.", code="bad_gateway")
        yield f"data: {json.dumps(broken.envelope())}\n\n".encode()
    current.count(usage.found)


async def _read(request: Request) -> dict[str, Any]:
    """The request's body, an object with a `model`.

    Raises:
        ApiError: it is something else.
    """
    try:
        body = strict_json.loads(await request.body())  # what vLLM gets is made of it, and must be JSON
    except InvalidJson as error:
        message = f"The body is not valid JSON: {error}."
        raise ApiError(400, message, code="invalid_json", param=error.field or None) from None
    if not isinstance(body, dict):
        raise ApiError(400, "The body must be a JSON object.", code="invalid_value")
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise ApiError(
            400, "`model` is missing: name one of GET /v1/models.", code="missing_required_parameter", param="model"
        )
    return body


def _error(status: int, body: bytes, route: str, model: str) -> ApiError:
    """vLLM's error in OpenAI's form. vLLM's codes are numbers, and its answer for an unknown route has no envelope."""
    try:
        error = strict_json.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (ValueError, LookupError, TypeError, AttributeError):
        if status == 404:
            return ApiError(400, f"The model served here does not support {route}.", code="unsupported_endpoint")
        return ApiError(status, f"The model server answered {status} without a reason.", code="bad_gateway")
    if status == 404:
        return ApiError(404, message, code="model_not_found", param="model")
    if NO_TOOL_PARSER in message:
        return ApiError(
            400,
            f"The model `{model}` is served without tool calls: its base has none, or no parser is known for "
            'them. Leave `tools` out, or set `tool_choice` to "none" and get what the model writes as text. '
            "Whoever runs the server can name a parser: see Tools in the README of the inference service.",
            code="tools_not_supported",
            param="tools",
        )
    code = "context_length_exceeded" if CONTEXT_LENGTH in message else None
    return ApiError(status, message, code=code, param=param if isinstance(param, str) else None)
