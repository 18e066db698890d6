"""What is kept of one request and its answer: metrics and a span; never a word of either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference import metrics
from services.inference.domain.usage import Usage
from services.inference.errors import answer, translate
from shared import telemetry

CLIENT_GONE = 499  # nginx's status for a client that hung up; nobody receives it
UNKNOWN = "unknown"

_propagator = TraceContextTextMapPropagator()


class Front:
    """ASGI middleware around everything: every request has a `traceparent`, every answer, also to a request that meets
    a bug, carries its trace id as `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(b"traceparent", b"").decode("latin-1")
        traceparent = telemetry.valid_traceparent(given) or telemetry.new_traceparent()
        scope.setdefault("state", {})["traceparent"] = traceparent
        request_id = telemetry.trace_id(traceparent).encode()

        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                others = [(name, value) for name, value in message.get("headers", ()) if name != b"x-request-id"]
                message = {**message, "headers": [*others, (b"x-request-id", request_id)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if answered:
                raise  # too late for another answer: the connection is closed
            await answer(translate(error))(scope, receive, send_with_id)


class Exchange:
    """One request for a generation. `status` and `model` are filled in as they become known."""

    def __init__(self, route: str, traceparent: str, span: trace.Span, clock: Callable[[], float]) -> None:
        self.route = route
        self.model = UNKNOWN
        self.alias: str | None = None
        self.status = 500
        self.traceparent = _inside(span) or traceparent
        """The context in which vLLM's own span belongs."""
        self._span = span
        self._clock = clock
        self._started = clock()

    def first_byte(self) -> None:
        seconds = self._clock() - self._started
        metrics.first_byte_seconds.labels(self.route, metrics.model_label(self.model)).observe(seconds)

    def count(self, usage: Usage | None) -> None:
        if usage is None:
            return
        label = metrics.model_label(self.model)
        metrics.tokens.labels(label, "prompt").inc(usage.prompt)
        metrics.tokens.labels(label, "completion").inc(usage.completion)
        self._span.set_attribute("gen_ai.usage.input_tokens", usage.prompt)
        self._span.set_attribute("gen_ai.usage.output_tokens", usage.completion)

    def end(self) -> None:
        # a model that does not exist is the client's text: as a label it would be unbounded
        label = UNKNOWN if self.model == UNKNOWN else metrics.model_label(self.model)
        metrics.requests.labels(self.route, label, str(self.status)).inc()
        metrics.seconds.labels(self.route, label).observe(self._clock() - self._started)
        attributes: dict[str, Any] = {
            "gen_ai.request.model": self.alias or self.model,
            "gen_ai.response.model": self.model,
            "http.response.status_code": self.status,
        }
        self._span.set_attributes(attributes)
        if self.status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


@contextmanager
def exchange(route: str, traceparent: str, clock: Callable[[], float] = time.monotonic) -> Iterator[Exchange]:
    """Ends when the last byte is out. Not `telemetry.span`: an answer is streamed outside of the handler's context."""
    parent = _propagator.extract({"traceparent": traceparent})
    span = trace.get_tracer("tunestream").start_span(f"POST {route}", context=parent, kind=SpanKind.SERVER)
    current = Exchange(route, traceparent, span, clock)
    try:
        yield current
    finally:
        current.end()


def _inside(span: trace.Span) -> str | None:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, context=trace.set_span_in_context(span))
    return carrier.get("traceparent")
