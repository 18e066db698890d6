"""Traces: one per job, best effort, never a reason to fail, and without any text of the user.

The `traceparent` of a job is in its manifest, so a stage that resumes on another machine days later continues the same
trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.events import Job, StageName

# the attributes that a span may have. An alias is not one of them: by default it is the name of the dataset's file.
SPAN_ATTRIBUTES = (
    "tunestream.job_id", "tunestream.attempt", "tunestream.outcome", "tunestream.model", "tunestream.examples",
    "tunestream.reused", "tunestream.step", "tunestream.first_request", "messaging.destination.name",
    "http.request.method", "http.route", "http.response.status_code", "gen_ai.request.model", "gen_ai.response.model",
    "gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens",
)  # fmt: skip
INHERITED = ("tunestream.job_id", "tunestream.attempt")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

Attribute = str | int | float | bool

_propagator = TraceContextTextMapPropagator()


def new_traceparent() -> str:
    """The context of a new trace, as a W3C `traceparent`."""
    generator = RandomIdGenerator()
    return f"00-{generator.generate_trace_id():032x}-{generator.generate_span_id():016x}-01"


def valid_traceparent(text: str | None) -> str | None:
    """`text` if it is a valid `traceparent`, else None."""
    if not text:
        return None
    context = trace.get_current_span(_context(text)).get_span_context()
    return text if context.is_valid else None


def trace_id(traceparent: str) -> str:
    """The trace id in `traceparent`: the 32 hex digits that a user pastes into Jaeger."""
    return traceparent.split("-")[1]


def trace_link(jaeger_url: str | None, traceparent: str) -> str | None:
    """The page of a trace in Jaeger; None: there is no Jaeger, or no trace."""
    if jaeger_url is None or valid_traceparent(traceparent) is None:
        return None
    return f"{jaeger_url.rstrip('/')}/trace/{trace_id(traceparent)}"


def traceparent_of(current: Span, asked_by: str | None) -> str:
    """The `traceparent` for children of `current`. If `current` is not recorded, its children become children of
    `asked_by`, its own parent, or, without one, of a new trace."""
    carrier: dict[str, str] = {}
    if current.is_recording():
        _propagator.inject(carrier, context=trace.set_span_in_context(current))
    return carrier.get("traceparent") or asked_by or new_traceparent()


def begin(
    name: str,
    traceparent: str | None = None,
    *,
    at: float | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[str] = (),
    attributes: Mapping[str, Attribute] | None = None,
) -> Span:
    """Start a span below `traceparent`, or without one below the current span. `end` must end it.

    `at`: when it began, in seconds since the epoch; None: now. `links`: traceparents of other spans that it belongs to.
    """
    parent = _context(traceparent) if traceparent else None
    return trace.get_tracer("tunestream").start_span(
        name,
        context=parent,
        kind=kind,
        attributes={**_inherited(parent), **(attributes or {})},
        links=[Link(trace.get_current_span(_context(link)).get_span_context()) for link in links],
        start_time=None if at is None else _nanoseconds(at),
    )


def end(current: Span, error: BaseException | None = None, *, at: float | None = None) -> None:
    """End a span. An error marks it as failed, with the error's class only: its message may quote a row."""
    if error is not None:
        current.set_status(Status(StatusCode.ERROR, type(error).__name__))
    current.end(None if at is None else _nanoseconds(at))


@contextmanager
def span(name: str, traceparent: str | None = None, **options: Any) -> Iterator[Span]:
    """A span around the block, which is the current span in it. `options` are those of `begin`."""
    current = begin(name, traceparent, **options)
    try:
        with trace.use_span(current, record_exception=False, set_status_on_exception=False):
            yield current
    except BaseException as error:
        end(current, error)
        raise
    end(current)


# --- a job's trace ------------------------------------------------------------------------------------------------
#
# A span is exported when it ends, and a process may be killed before that. Therefore the spans that have children,
# `job` and one `{stage}.started` for each attempt, end at once. So the trace of a running job is always a whole tree.

MOMENT = 1e-6
"""Seconds. When a child ends after its parent and is not longer, Jaeger assumes a wrong clock and moves the child.
Therefore `job` is shorter than `{stage}.started`, which is shorter than any phase. Jaeger also treats a duration of
zero as an error."""


class JobRoot:
    """The root span of a job. Its `traceparent` goes into the manifest. `emit` exports it when the manifest is known to
    be ours, so a job that is asked for twice has one root."""

    def __init__(self, asked_by: str | None, links: Sequence[str] = ()) -> None:
        """`asked_by`: the traceparent that came with the request for the job; an invalid one is ignored. `links`: those
        of the jobs that it continues."""
        asked_by = valid_traceparent(asked_by)
        self.at = time.time()
        self._span = begin("job", asked_by, at=self.at, links=links)
        self.traceparent = traceparent_of(self._span, asked_by)

    def emit(self, job_id: str) -> None:
        self._span.set_attribute("tunestream.job_id", job_id)
        end(self._span, at=self.at + MOMENT)


@contextmanager
def job_span(job: Job, stage: StageName, attempt: int) -> Iterator[Callable[[str], None]]:
    """The spans of one attempt at a stage: `{stage}.started` at once, the parent of all others, and `{stage}` when the
    attempt ended. Yields a function that is called with the outcome of the stage."""
    attributes: dict[str, Attribute] = {"tunestream.job_id": job.job_id, "tunestream.attempt": attempt}
    now = time.time()
    started = begin(f"{stage}.started", job.traceparent, at=now, attributes=attributes)
    end(started, at=now + 2 * MOMENT)
    with trace.use_span(started, record_exception=False, set_status_on_exception=False):
        whole = begin(stage, at=now)

        try:
            yield lambda outcome: set_outcome(whole, outcome)
        except BaseException as error:
            end(whole, error)
            raise
        end(whole)


def set_outcome(current: Span, outcome: str) -> None:
    """Record how the stage ended. Any outcome but `completed` marks the span as failed."""
    current.set_attribute("tunestream.outcome", outcome)
    if outcome != "completed":
        current.set_status(Status(StatusCode.ERROR, outcome))


@contextmanager
def unrecorded() -> Iterator[None]:
    """Requests in this block carry the trace's id, but no spans of them are recorded, here or by the receiver."""
    now = trace.get_current_span().get_span_context()
    muted = SpanContext(now.trace_id, now.span_id, now.is_remote, TraceFlags(TraceFlags.DEFAULT), now.trace_state)
    with trace.use_span(NonRecordingSpan(muted)):
        yield


# --- requests -----------------------------------------------------------------------------------------------------


class RequestSpan:
    """The span of an HTTP request, if it has one. `traceparent` is its place in a trace in either case."""

    def __init__(self, scope: Mapping[str, Any], traceparent: str, current: Span) -> None:
        self.traceparent = traceparent
        self._scope = scope
        self._span = current

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        # the pattern, never the path, which may hold text of a user; the router sets it
        if route := getattr(self._scope.get("route"), "path", None):
            self._span.update_name(f"{self._scope['method']} {route}")
            self._span.set_attribute("http.route", route)


@contextmanager
def request_span(scope: Mapping[str, Any], asked_by: str | None, *, elsewhere: bool = False) -> Iterator[RequestSpan]:
    """The span of a request that may change something, below `asked_by`, the valid `traceparent` that it came with.

    Reading requests have no span: clients that look at a job twice a second would hide everything else. Requests whose
    span is made `elsewhere` have none here.
    """
    method: str = scope["method"]
    if elsewhere or method in SAFE_METHODS:
        yield RequestSpan(scope, asked_by or new_traceparent(), trace.INVALID_SPAN)
        return
    with span(method, asked_by, kind=SpanKind.SERVER, attributes={"http.request.method": method}) as current:
        yield RequestSpan(scope, traceparent_of(current, asked_by), current)


# --- small things -------------------------------------------------------------------------------------------------


def _context(traceparent: str | None) -> otel_context.Context:
    # into an empty context: an invalid traceparent must not stand for the current span
    return _propagator.extract({"traceparent": traceparent or ""}, context=otel_context.Context())


def _inherited(parent: otel_context.Context | None) -> dict[str, Any]:
    """The job and the attempt of the parent span, so that all spans of a job or an attempt can be found."""
    above = trace.get_current_span(parent)
    attributes = (above.attributes or {}) if isinstance(above, ReadableSpan) else {}
    return {name: attributes[name] for name in INHERITED if name in attributes}


def _nanoseconds(at: float) -> int:
    return round(at * 1e9)
