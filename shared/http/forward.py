"""Hands requests to the other HTTP service, so that an OpenAI client needs only one `base_url`, whichever of the two it
is. Bodies and answers are streamed, and a client that hangs up ends the request there, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import httpx
from fastapi import APIRouter
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from shared.http.client_gone import CLIENT_GONE, ClientGone, UntilGone
from shared.http.errors import ApiError

CONTROL_PLANE = (
    *("/v1/files", "/v1/uploads", "/v1/fine_tuning"),
    *("/v1/webhook_endpoints", "/v1/webhook_event_types", "/v1/organization"),
)
"""What the api service answers."""
MODELS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models")
"""What the inference service answers."""
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]
FORWARDED = "x-tunestream-forwarded"
"""The header of a request that was handed on once. It is never handed on again."""
RETRY_AFTER = 5
"""Seconds after which a client may try again when the other service is away."""
CONNECTIONS = 400
"""Requests that are handed on at a time. Each takes two open files."""
# The answer to a generation may take minutes to begin; the official client itself gives up after 600 s.
TIMEOUT = httpx.Timeout(connect=5.0, read=900.0, write=60.0, pool=10.0)
KEEPALIVE_SECONDS = 4.0
"""Our services close a connection after 5 s without a request."""
# headers that belong to one connection (RFC 9110 §7.6.1), or that each server sets itself
NOT_FORWARDED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "host", "date", "server", "traceparent", "x-request-id", FORWARDED),
}


@dataclass(frozen=True)
class Other:
    """The other service. `url`: its address, without `/v1`; `setting`: the variable that holds it."""

    name: str
    url: str
    setting: str


class Forwarder:
    """The routes that hand requests on. `close` must be called."""

    def __init__(self, other: Other, prefixes: Collection[str]) -> None:
        """All paths at and below `prefixes` go to `other`."""
        self._other = other
        self._target = httpx.URL(other.url)
        self._prefixes = prefixes
        limits = httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=KEEPALIVE_SECONDS)
        self._client = httpx.AsyncClient(timeout=TIMEOUT, limits=limits, trust_env=False, follow_redirects=False)

    def router(self) -> APIRouter:
        routes = APIRouter()
        for prefix in self._prefixes:
            for path in (prefix, prefix + "/{rest:path}"):
                routes.routes.append(Route(path, _Endpoint(path, self), methods=METHODS, include_in_schema=False))
        return routes

    async def close(self) -> None:
        await self._client.aclose()

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request with what the other service says.

        Raises:
            ApiError: the other service does not answer, or the request was handed on before.
        """
        body = _Body(receive)
        asked = self._request(scope, body)
        answered = False
        try:
            async with UntilGone(body.receive_behind), self._open(asked) as upstream:
                answered = True
                await _pass_on(upstream, send)
        except ClientGone:
            if not answered:
                await Response(status_code=CLIENT_GONE)(scope, receive, send)

    def _request(self, scope: Scope, body: _Body) -> httpx.Request:
        """The request as the other service gets it: the same path, query, key and body."""
        headers = Headers(scope=scope)
        if FORWARDED in headers:
            raise ApiError(
                502,
                f"This request was handed on already, and came back: {self._other.setting} must be the address of the "
                f"{self._other.name} service.",
                code="bad_gateway",
                headers={"x-should-retry": "false"},
            )
        path = scope["path"]
        if any(part in (".", "..") for part in path.split("/")):
            raise HTTPException(404)  # it would lead to a path that is not handed on
        raw = scope.get("raw_path", path.encode()).split(b"?")[0]
        query = scope["query_string"]
        try:
            base = self._target.raw_path.rstrip(b"/")
            url = self._target.copy_with(raw_path=base + raw + (b"?" + query if query else b""))
        except (httpx.InvalidURL, UnicodeDecodeError):
            message = "This is no URL: bytes beyond ASCII must be percent-encoded."
            raise ApiError(400, message, code="invalid_url") from None
        # as bytes: a header may be no ASCII
        passed = [(name, value) for name, value in headers.raw if name.decode("latin-1") not in NOT_FORWARDED]
        own = [(b"traceparent", scope["state"]["traceparent"].encode()), (FORWARDED.encode(), b"1")]
        has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        if not has_body:
            body.ended.set()
        content = body.stream() if has_body else None
        return self._client.build_request(scope["method"], url, headers=[*passed, *own], content=content)

    @asynccontextmanager
    async def _open(self, asked: httpx.Request) -> AsyncIterator[Upstream]:
        """Send `asked`, and wait for the first chunk of the answer. The connection is open until the block is left."""
        response = None
        try:
            try:
                response = await self._client.send(asked, stream=True)
                rest = response.aiter_raw()
                first = await anext(rest, b"")
            except httpx.TransportError as error:
                raise self._broken(error) from None
            yield Upstream(response, first, rest)
        finally:
            if response is not None:
                with anyio.CancelScope(shield=True):
                    await response.aclose()

    def _broken(self, error: httpx.TransportError) -> ApiError:
        other = self._other
        if isinstance(error, httpx.PoolTimeout):
            message = f"{CONNECTIONS} requests to the {other.name} service are under way. Try again in a moment."
            return ApiError(429, message, code="rate_limit_exceeded", headers={"retry-after": str(RETRY_AFTER)})
        if isinstance(error, httpx.TimeoutException):
            return ApiError(504, f"The {other.name} service took too long to answer.", code="upstream_timeout")
        return ApiError(
            502,
            f"The {other.name} service does not answer. Is it running, and is {other.setting} right?",
            code="bad_gateway",
            headers={"retry-after": str(RETRY_AFTER)},
        )


@dataclass
class Upstream:
    """An answer of the other service, whose first chunk has come. If the connection breaks from now on, the client sees
    it."""

    response: httpx.Response
    first: bytes
    rest: AsyncIterator[bytes]

    async def chunks(self) -> AsyncIterator[bytes]:
        if self.first:
            yield self.first
        async for chunk in self.rest:
            yield chunk


class _Body:
    """The body of a request, which is read once. When it has been read, the next message is that the client is gone."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.ended = asyncio.Event()

    async def stream(self) -> AsyncIterator[bytes]:
        """Raises ClientGone: the client hung up before the end."""
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            if part := message.get("body", b""):
                yield part
            if not message.get("more_body", False):
                self.ended.set()
                return

    async def receive_behind(self) -> Message:
        """The next message behind the body."""
        await self.ended.wait()
        return await self._receive()


class _Endpoint:
    """One route as an ASGI app."""

    def __init__(self, path: str, forwarder: Forwarder) -> None:
        self.path = path
        self._forwarder = forwarder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self  # spans name it by its `path`
        await self._forwarder.answer(scope, receive, send)


async def _pass_on(upstream: Upstream, send: Send) -> None:
    headers = [(name.lower(), value) for name, value in upstream.response.headers.raw]
    passed = [(name, value) for name, value in headers if name.decode("latin-1") not in NOT_FORWARDED]
    await send({"type": "http.response.start", "status": upstream.response.status_code, "headers": passed})
    async for chunk in upstream.chunks():
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
