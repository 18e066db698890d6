"""Forwards requests about files, uploads and fine-tuning jobs to the api service, so that an OpenAI client needs only
one `base_url`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from services.inference.errors import RETRY_AFTER
from services.inference.gateway.exchange import CLIENT_GONE
from services.inference.gateway.relay import ScopedResponse, open_upstream
from shared.http.errors import ApiError

PREFIXES = ("/v1/files", "/v1/uploads", "/v1/fine_tuning")
METHODS = ["GET", "POST", "DELETE", "PUT", "PATCH"]
# headers that belong to one connection (RFC 9110 §7.6.1), or that each server sets itself
NOT_FORWARDED = {
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"),
    *("upgrade", "host", "date", "server", "traceparent", "x-request-id"),
}


def router(client: httpx.AsyncClient, api_url: str) -> APIRouter:
    """The routes that forward all paths below `PREFIXES` to `api_url`. Bodies are streamed both ways."""
    routes = APIRouter()
    target = httpx.URL(api_url)

    async def forward(request: Request) -> Response:
        return ScopedResponse(partial(_forwarded, client, target, request))

    for prefix in PREFIXES:
        routes.add_api_route(prefix, forward, methods=METHODS, include_in_schema=False)
        routes.add_api_route(prefix + "/{rest:path}", forward, methods=METHODS, include_in_schema=False)
    return routes


async def _forwarded(client: httpx.AsyncClient, target: httpx.URL, request: Request, stack: AsyncExitStack) -> Response:
    """The answer of the api service at `target`. `stack` holds its connection open."""
    try:
        asked = _upstream_request(client, target, request)
        upstream = await stack.enter_async_context(open_upstream(client, asked))
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    except httpx.TimeoutException:
        raise ApiError(504, "The api service took too long to answer.", code="upstream_timeout") from None
    except httpx.TransportError:
        raise ApiError(
            502,
            "The api service does not answer. Is it running, and is TUNESTREAM_API__URL right?",
            code="bad_gateway",
            headers={"retry-after": str(RETRY_AFTER)},
        ) from None
    passed = {name: value for name, value in upstream.response.headers.items() if name not in NOT_FORWARDED}
    return StreamingResponse(upstream.chunks(), upstream.response.status_code, passed)


def _upstream_request(client: httpx.AsyncClient, target: httpx.URL, request: Request) -> httpx.Request:
    """The request as the api service gets it: the same path, query and body."""
    path = request.scope["path"]
    if any(part in (".", "..") for part in path.split("/")):
        raise HTTPException(404)  # it would lead to a path that is not forwarded
    raw = request.scope.get("raw_path", path.encode()).split(b"?")[0]
    query = request.scope["query_string"]
    # as bytes: a header may be no ASCII
    headers = [(name, value) for name, value in request.headers.raw if name.decode("latin-1") not in NOT_FORWARDED]
    try:
        url = target.copy_with(raw_path=target.raw_path.rstrip(b"/") + raw + (b"?" + query if query else b""))
    except (httpx.InvalidURL, UnicodeDecodeError):
        message = "This is no URL: bytes beyond ASCII must be percent-encoded."
        raise ApiError(400, message, code="invalid_url") from None
    return client.build_request(
        request.method,
        url,
        headers=[*headers, (b"traceparent", request.state.traceparent.encode())],
        content=request.stream() if _has_body(request) else None,
    )


def _has_body(request: Request) -> bool:
    return "transfer-encoding" in request.headers or request.headers.get("content-length", "0") != "0"
