"""Traces: one per job, best effort, never a reason to fail, and without a word of the user's.

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

# the same for spans. An alias is missing on purpose: where none was chosen, it is the dataset's file name.
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
    """The text if it is a `traceparent`, else None."""
    context = trace.get_current_span(_context(text)).get_span_context()
    return text if context.is_valid else None


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that a user pastes into Jaeger."""
    return traceparent.split("-")[1]


def traceparent_of(current: Span, asked_by: str | None) -> str:
    """What hangs others below `current`, which is below `asked_by`, if that is given. Where `current` is not recorded,
    they hang where it would have."""
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
    """A span below `traceparent`, or without one below the current span, for `end` to end.

    `at`: when it began, in seconds since the epoch, if not now. `links`: the traceparents of what it belongs to, too.
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
    """End a span. An error marks it as failed with its class name only: the message may quote a row."""
    if error is not None:
        current.set_status(Status(StatusCode.ERROR, type(error).__name__))
    current.end(None if at is None else _nanoseconds(at))


@contextmanager
def span(name: str, traceparent: str | None = None, **options: Any) -> Iterator[Span]:
    """A span around the block, and the current one in it. `options` are those of `begin`."""
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
# A span is exported when it ends, and a process may be killed before. So whatever other spans hang on is ended as soon
# as it began: `job`, and one `{stage}.started` for each attempt. A running job has a whole tree at any moment.

MOMENT = 1e-6
"""Seconds. Jaeger takes a clock to be wrong where a child is not longer than its parent and ends after it, so `job` is
shorter than `{stage}.started`, and that than any phase. No time at all is taken for an error, too."""


class JobRoot:
    """The span that a job's trace hangs on. Its own `traceparent` goes into the manifest; it is only exported by
    `emit`, once it is certain that the manifest was ours: a job that is asked for twice has one root."""

    def __init__(self, asked_by: str | None) -> None:
        """`asked_by`: the traceparent of whoever asked for the job, if there is a valid one."""
        asked_by = valid_traceparent(asked_by)
        self.at = time.time()
        self._span = begin("job", asked_by, at=self.at)
        self.traceparent = traceparent_of(self._span, asked_by)

    def emit(self, job_id: str) -> None:
        self._span.set_attribute("tunestream.job_id", job_id)
        end(self._span, at=self.at + MOMENT)


@contextmanager
def job_span(job: Job, stage: StageName, attempt: int) -> Iterator[Callable[[str], None]]:
    """The spans of one attempt at a stage: `{stage}.started` at once, below which all the others are, and `{stage}`
    when it ended. Yields what takes the outcome of the stage."""
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
    """How the stage ended: `completed`, or an error."""
    current.set_attribute("tunestream.outcome", outcome)
    if outcome != "completed":
        current.set_status(Status(StatusCode.ERROR, outcome))


@contextmanager
def unrecorded() -> Iterator[None]:
    """What is asked of others in this block belongs to the trace, but neither they nor we record spans of it."""
    now = trace.get_current_span().get_span_context()
    muted = SpanContext(now.trace_id, now.span_id, now.is_remote, TraceFlags(TraceFlags.DEFAULT), now.trace_state)
    with trace.use_span(NonRecordingSpan(muted)):
        yield


# --- requests -----------------------------------------------------------------------------------------------------


class RequestSpan:
    """The span of an HTTP request, if it has one; `traceparent` is its place in a trace, with or without."""

    def __init__(self, scope: Mapping[str, Any], traceparent: str, current: Span) -> None:
        self.traceparent = traceparent
        self._scope = scope
        self._span = current

    def answered(self, status: int) -> None:
        self._span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._span.set_status(Status(StatusCode.ERROR))
        # the pattern, never the path, which may name what is the user's; it is known once the router has routed
        if route := getattr(self._scope.get("route"), "path", None):
            self._span.update_name(f"{self._scope['method']} {route}")
            self._span.set_attribute("http.route", route)


@contextmanager
def request_span(scope: Mapping[str, Any], asked_by: str | None, *, elsewhere: bool = False) -> Iterator[RequestSpan]:
    """The span of a request that may change something, below `asked_by`, its valid `traceparent` if it came with one.

    Other requests have none: clients that look at a job twice a second would bury everything else. Nor have those of
    which a span is made `elsewhere`.
    """
    method: str = scope["method"]
    if elsewhere or method in SAFE_METHODS:
        yield RequestSpan(scope, asked_by or new_traceparent(), trace.INVALID_SPAN)
        return
    with span(method, asked_by, kind=SpanKind.SERVER, attributes={"http.request.method": method}) as current:
        yield RequestSpan(scope, traceparent_of(current, asked_by), current)


# --- small things -------------------------------------------------------------------------------------------------


def _context(traceparent: str | None) -> otel_context.Context:
    # into an empty context: what is no traceparent must not mean the current span
    return _propagator.extract({"traceparent": traceparent or ""}, context=otel_context.Context())


def _inherited(parent: otel_context.Context | None) -> dict[str, Any]:
    """The job and the attempt that the span above belongs to, so that either finds all of its spans."""
    above = trace.get_current_span(parent)
    attributes = (above.attributes or {}) if isinstance(above, ReadableSpan) else {}
    return {name: attributes[name] for name in INHERITED if name in attributes}


def _nanoseconds(at: float) -> int:
    return round(at * 1e9)
