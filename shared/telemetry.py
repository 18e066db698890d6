"""Traces, logs and metrics: best effort, never a reason to fail, and without a word of the user's (DESIGN §6).

One trace per job: its `traceparent` is in the job's manifest, so a stage that resumes on another machine days later
continues the same trace.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.events import Job, StageName
from shared.settings import Telemetry

# what may leave the house on a log line or a span beside the message; everything else may hold user text
LOG_FIELDS = (
    "job_id", "trace_id", "stage", "epoch", "outcome", "reason", "topic", "offset", "partition", "event", "port", "pid",
    "status", "seconds", "count", "model", "alias", "step", "code", "attempt", "signal",
)  # fmt: skip
SPAN_EXPORT_MILLIS = 200

_propagator = TraceContextTextMapPropagator()


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, service, logger, message and the allow-listed extra fields.

    The message of an exception is left out (it may quote a row); its class and where it was raised are kept.
    """

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in LOG_FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0]:
            line["exception"] = record.exc_info[0].__name__
            line["stack"] = _frames(record)
        return json.dumps(line, default=str)


def _frames(record: logging.LogRecord) -> list[str]:
    traceback = record.exc_info[2] if record.exc_info else None
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}")
        traceback = traceback.tb_next
    return frames


def set_up(service: str, settings: Telemetry) -> None:
    """Log to stderr, and export spans if an OTLP endpoint is set."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=settings.log_level, handlers=[handler], force=True)
    for chatty in ("aiokafka", "httpx", "httpcore", "urllib3"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # aiokafka reports every refused connection and every rebalance as an error with a stack
    logging.getLogger("aiokafka.consumer.group_coordinator").setLevel(logging.CRITICAL)
    if settings.otlp_endpoint:
        provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
        exporter = OTLPSpanExporter(endpoint=settings.otlp_endpoint, insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SPAN_EXPORT_MILLIS))
        trace.set_tracer_provider(provider)


def new_traceparent() -> str:
    """The context of a new trace, as a W3C `traceparent`."""
    generator = RandomIdGenerator()
    return f"00-{generator.generate_trace_id():032x}-{generator.generate_span_id():016x}-01"


def valid_traceparent(text: str | None) -> str | None:
    """The text if it is a `traceparent`, else None."""
    context = trace.get_current_span(_propagator.extract({"traceparent": text or ""})).get_span_context()
    return text if context.is_valid else None


def trace_id(traceparent: str) -> str:
    """The 32 hex digits that a user pastes into Jaeger."""
    return traceparent.split("-")[1]


@contextmanager
def span(name: str, traceparent: str | None, **attributes: str | int | float | bool) -> Iterator[Span]:
    """A span below `traceparent`. An exception marks it as failed with its class name only."""
    parent = _propagator.extract({"traceparent": traceparent}) if traceparent else None
    tracer = trace.get_tracer("tunestream")
    with tracer.start_as_current_span(
        name, context=parent, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except BaseException as error:
            current.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise


@contextmanager
def job_span(job: Job, stage: StageName, epoch: int) -> Iterator[Span]:
    """The span of one attempt at a stage, and before it a zero-length one: a span shows up only when it has ended."""
    attributes: dict[str, str | int | float | bool] = {"tunestream.job_id": job.job_id, "tunestream.epoch": epoch}
    with span(f"{stage}.started", job.traceparent, **attributes):
        pass
    with span(stage, job.traceparent, **attributes) as current:
        yield current
