"""Gives every request a place in a trace, and every answer the trace id as its `x-request-id`."""

from __future__ import annotations

import logging
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import telemetry
from shared.http.errors import ErrorTable, request_id

log = logging.getLogger(__name__)


class RequestId:
    """ASGI middleware outside of everything else that answers a request.

    It puts two values into the state of a request: `asked_by`, the valid `traceparent` that it came with or None, and
    `traceparent`, its own place in a trace. A handler may replace `traceparent` before it answers.
    This middleware also answers exceptions that nobody handled, so that those answers have an `x-request-id`, too.
    """

    def __init__(self, app: ASGIApp, errors: ErrorTable, own_spans: Collection[str] = ()) -> None:
        """`own_spans`: the paths whose handlers make the span of a request themselves."""
        self._app = app
        self._errors = errors
        self._own_spans = own_spans

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked_by = telemetry.valid_traceparent(Headers(scope=scope).get("traceparent"))
        with telemetry.request_span(scope, asked_by, elsewhere=scope["path"] in self._own_spans) as span:
            scope.setdefault("state", {}).update(asked_by=asked_by, traceparent=span.traceparent)
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: telemetry.RequestSpan) -> None:
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                span.answered(message["status"])
                # replaced, not appended: an answer that is passed on from another service already has one
                MutableHeaders(scope=message)["x-request-id"] = telemetry.trace_id(scope["state"]["traceparent"])
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if answered:  # too late for another answer: the server logs the error and closes the connection
                log.warning(
                    "an answer ended before it was complete",
                    extra={"trace_id": request_id(scope), "reason": type(error).__name__},
                )
                raise
            await self._errors.answer(error, scope).response()(scope, receive, send_with_id)
