"""The metrics and the span of one request for a generation. No text of the request or of its answer is kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import SpanKind, Status, StatusCode
from starlette.types import Send

from services.inference import metrics
from services.inference.domain.usage import Usage
from services.inference.registry.first_requests import JobTrace
from shared import telemetry
from shared.access.keyring import Holder
from shared.telemetry.metrics import series

UNKNOWN = "unknown"
GENERATION = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""The routes whose spans are made here, because the trace of such a request depends on the model that it asks for."""


class Exchange:
    """One request for a generation, and its answer. The caller sets `status` as soon as it is known."""

    def __init__(self, route: str, state: dict[str, Any], clock: Callable[[], float]) -> None:
        """`state`: of the request, see `shared.http.request_id`."""
        self.route = route
        self.model = UNKNOWN
        self.status = 500
        self.answered = False
        """The answer has begun."""
        self.patience = 0.0
        """Seconds that it waits for vLLM to be up."""
        self.traceparent: str = state["traceparent"]
        """The parent of vLLM's own span."""
        self._state = state
        self._span: trace.Span | None = None
        self._clock = clock
        self._started = clock()
        self._at = time.time()

    def begin(self, model: str, job_trace: JobTrace) -> trace.Span:
        """Record the model that the request is for, and begin the span of the request."""
        self.model = model
        asked_by = self._state["asked_by"]
        parent = asked_by or (job_trace.traceparent if job_trace.continued else None)
        link = job_trace.traceparent
        self._span = telemetry.begin(
            f"POST {self.route}",
            parent,
            at=self._at,
            kind=SpanKind.SERVER,
            links=[link] if link and not _same_trace(parent, link) else [],  # the evaluator is in that trace already
            attributes={"tunestream.first_request": True} if job_trace.continued else {},
        )
        self._state["traceparent"] = self.traceparent = telemetry.traceparent_of(self._span, parent)
        return self._span

    @contextmanager
    def as_parent(self) -> Iterator[None]:
        """Make the span of the request the parent of all spans that begin in the block."""
        with trace.use_span(self._span or trace.INVALID_SPAN):
            yield

    async def start(self, send: Send, status: int, headers: Mapping[str, str]) -> None:
        """Begin the answer."""
        self.status, self.answered = status, True
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw})

    def first_byte(self) -> None:
        seconds = self._clock() - self._started
        series(metrics.first_byte_seconds, self.route, metrics.model_label(self.model)).observe(seconds)

    def count(self, usage: Usage | None) -> None:
        if usage is None:
            return
        self.spend(usage.prompt + usage.completion)
        label = metrics.model_label(self.model)
        series(metrics.tokens, label, "prompt").inc(usage.prompt)
        series(metrics.tokens, label, "completion").inc(usage.completion)
        if self._span is not None:
            self._span.set_attribute("gen_ai.usage.input_tokens", usage.prompt)
            self._span.set_attribute("gen_ai.usage.output_tokens", usage.completion)

    def spend(self, tokens: int) -> None:
        """Count `tokens` against the limit of the API key, if it has one."""
        holder: Holder | None = self._state.get("holder")
        if holder is not None and holder.limiter is not None:
            holder.limiter.spend(tokens, self._clock())

    def end(self) -> None:
        # the name of a model that does not exist is text of the client: as a label it would be unbounded
        label = UNKNOWN if self.model == UNKNOWN else metrics.model_label(self.model)
        series(metrics.requests, self.route, label, str(self.status)).inc()
        series(metrics.seconds, self.route, label).observe(self._clock() - self._started)
        span = self._span or self.begin(UNKNOWN, JobTrace())
        # not the alias of the request, which may be the name of a user's file
        attributes: dict[str, Any] = {
            "gen_ai.request.model": self.model,
            "gen_ai.response.model": self.model,
            "http.response.status_code": self.status,
        }
        span.set_attributes(attributes)
        if self.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end()


@contextmanager
def exchange(route: str, state: dict[str, Any], clock: Callable[[], float] = time.monotonic) -> Iterator[Exchange]:
    """Measure a request from its beginning to the last byte of its answer.

    `telemetry.span` is not used, because the span begins later, when the model is known.
    """
    current = Exchange(route, state, clock)
    try:
        yield current
    finally:
        current.end()


def _same_trace(one: str | None, other: str) -> bool:
    return one is not None and telemetry.trace_id(one) == telemetry.trace_id(other)
