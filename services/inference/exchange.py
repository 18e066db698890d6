"""What is kept of one request and its answer: metrics and a span; never a word of either."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.datastructures import Headers, State
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.inference import metrics
from services.inference.domain.usage import Usage
from services.inference.errors import answer, translate
from services.inference.stories import Story
from shared import telemetry

CLIENT_GONE = 499  # nginx's status for a client that hung up; nobody receives it
UNKNOWN = "unknown"
GENERATION = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""The routes whose spans are made by `exchange`: whose trace they belong to is known when the model is."""


class Front:
    """ASGI middleware around everything: every request has a `traceparent` in its state (beside it, as `asked_by`, the
    one that it came with), and every answer, also to a request that meets a bug, carries its trace id as
    `x-request-id`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        asked_by = telemetry.valid_traceparent(Headers(scope=scope).get("traceparent"))
        with telemetry.request_span(scope, asked_by, elsewhere=scope["path"] in GENERATION) as span:
            scope.setdefault("state", {}).update(asked_by=asked_by, traceparent=span.traceparent)
            await self._answer(scope, receive, send, span)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, span: telemetry.RequestSpan) -> None:
        answered = False

        async def send_with_id(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                span.answered(message["status"])
                others = [(name, value) for name, value in message.get("headers", ()) if name != b"x-request-id"]
                request_id = telemetry.trace_id(scope["state"]["traceparent"]).encode()
                message = {**message, "headers": [*others, (b"x-request-id", request_id)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            if answered:
                raise  # too late for another answer: the connection is closed
            await answer(translate(error))(scope, receive, send_with_id)


class Exchange:
    """One request for a generation. `status` is filled in as it becomes known."""

    def __init__(self, route: str, state: State, clock: Callable[[], float]) -> None:
        self.route = route
        self.model = UNKNOWN
        self.status = 500
        self._state = state
        self._span: trace.Span | None = None
        self._clock = clock
        self._started = clock()
        self._at = time.time()

    @property
    def traceparent(self) -> str:
        """The context in which vLLM's own span belongs."""
        return str(self._state.traceparent)

    def concerns(self, model: str, story: Story) -> None:
        """What the request is for, and the trace of the job that made it."""
        self.model = model
        self._begin(story)

    @contextmanager
    def inside(self) -> Iterator[None]:
        """What is done in the block for this request has its spans below the request's."""
        with trace.use_span(self._span or trace.INVALID_SPAN):
            yield

    def first_byte(self) -> None:
        seconds = self._clock() - self._started
        metrics.first_byte_seconds.labels(self.route, metrics.model_label(self.model)).observe(seconds)

    def count(self, usage: Usage | None) -> None:
        if usage is None:
            return
        label = metrics.model_label(self.model)
        metrics.tokens.labels(label, "prompt").inc(usage.prompt)
        metrics.tokens.labels(label, "completion").inc(usage.completion)
        if self._span is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", usage.prompt)
            self._span.set_attribute("gen_ai.usage.output_tokens", usage.completion)

    def end(self) -> None:
        # a model that does not exist is the client's text: as a label it would be unbounded
        label = UNKNOWN if self.model == UNKNOWN else metrics.model_label(self.model)
        metrics.requests.labels(self.route, label, str(self.status)).inc()
        metrics.seconds.labels(self.route, label).observe(self._clock() - self._started)
        span = self._span or self._begin(Story())
        # not the alias by which the model was asked for: it may be the name of somebody's file
        attributes: dict[str, Any] = {
            "gen_ai.request.model": self.model,
            "gen_ai.response.model": self.model,
            "http.response.status_code": self.status,
        }
        span.set_attributes(attributes)
        if self.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def _begin(self, story: Story) -> trace.Span:
        asked_by = self._state.asked_by
        parent = asked_by or (story.traceparent if story.opens else None)
        self._span = telemetry.begin(
            f"POST {self.route}",
            parent,
            at=self._at,
            kind=SpanKind.SERVER,
            # the evaluator's requests are in that trace already
            links=[story.traceparent] if story.traceparent and not _same_trace(parent, story.traceparent) else [],
            attributes={"tunestream.first_request": True} if story.opens else {},
        )
        self._state.traceparent = telemetry.traceparent_of(self._span, parent)
        return self._span


@contextmanager
def exchange(route: str, state: State, clock: Callable[[], float] = time.monotonic) -> Iterator[Exchange]:
    """Ends when the last byte is out. Not `telemetry.span`: an answer is streamed outside of the handler's context."""
    current = Exchange(route, state, clock)
    try:
        yield current
    finally:
        current.end()


def _same_trace(one: str | None, other: str) -> bool:
    return one is not None and telemetry.trace_id(one) == telemetry.trace_id(other)
