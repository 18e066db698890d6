"""Every answer's frame: JSON bodies, lists, errors in OpenAI's envelope, and the trace id in `x-request-id`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic_core import to_json
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import telemetry
from shared.errors import TransientError

log = logging.getLogger(__name__)

RETRY_SECONDS = 2


class ApiError(Exception):
    """An answer that says what was wrong with the request, in OpenAI's words."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
        self.headers = dict(headers or {})

    def response(self) -> Response:
        return json_response(self.body, self.status, self.headers)


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON in which a figure that is not a number is null: a loss may be NaN, JSON knows none."""
    return Response(to_json(body, inf_nan_mode="null"), status, dict(headers or {}), "application/json")


def listing(items: Sequence[Mapping[str, Any]], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": list(items),
        "has_more": has_more,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
    }


def install(app: FastAPI) -> None:
    """Frame every answer of `app`, also those that the framework gives."""
    app.add_middleware(Frame)
    handlers: dict[Any, Callable[[Request, Any], ApiError]] = {
        ApiError: lambda request, error: error,
        HTTPException: _http_error,
        RequestValidationError: _invalid,
        TransientError: _unavailable,
    }
    for kind, translate in handlers.items():
        app.add_exception_handler(kind, _handler(translate))


def _handler(
    translate: Callable[[Request, Any], ApiError],
) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    async def handle(request: Request, error: Exception) -> Response:
        return translate(request, error).response()

    return handle


def _http_error(request: Request, error: HTTPException) -> ApiError:
    what = f"{request.method} {request.url.path}"
    if error.status_code == 404:
        return ApiError(404, f"Unknown request URL: {what}.", code="unknown_url")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"Not allowed to {what}; this URL takes {allowed}."
        return ApiError(405, message, code="method_not_supported", headers=error.headers)
    return ApiError(error.status_code, str(error.detail), headers=error.headers)


def _invalid(request: Request, error: RequestValidationError) -> ApiError:
    problem = error.errors()[0]
    param = ".".join(str(part) for part in problem["loc"][1:]) or None
    message = f"Invalid value for '{param}': {problem['msg']}." if param else f"Invalid request: {problem['msg']}."
    return ApiError(422, message, param=param, code="invalid_value")


def _unavailable(request: Request, error: TransientError) -> ApiError:
    log.warning("answered 503", extra={"reason": type(error).__name__})
    message = "The object store or the database does not answer right now; try again in a moment."
    headers = {"retry-after": str(RETRY_SECONDS)}
    return ApiError(503, message, kind="server_error", code="service_unavailable", headers=headers)


class Frame:
    """Adds `x-request-id`, the trace id that a user pastes into Jaeger, and answers for whatever raised."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = telemetry.valid_traceparent(Headers(scope=scope).get("traceparent"))
        with telemetry.request_span(scope, given) as span:
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: telemetry.RequestSpan) -> None:
        request_id = telemetry.trace_id(span.traceparent)
        started = False

        async def framed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                span.answered(message["status"])
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, framed)
        except Exception:
            log.exception("a request failed", extra={"trace_id": request_id})
            if started:
                raise
            text = f"The server had an error; it is in its log under request id {request_id}."
            await ApiError(500, text, kind="server_error", code="internal_error").response()(scope, receive, framed)
