"""Traces, logs and metrics: best effort, never a reason to fail, and without any text of the user. See
docs/architecture.md, "Telemetry"."""

from __future__ import annotations

from shared.settings import TelemetrySettings
from shared.telemetry import logs, otlp
from shared.telemetry.logs import LOG_FIELDS, JsonFormatter
from shared.telemetry.tracing import (
    INHERITED,
    MOMENT,
    SAFE_METHODS,
    SPAN_ATTRIBUTES,
    Attribute,
    JobRoot,
    RequestSpan,
    begin,
    end,
    job_span,
    new_traceparent,
    request_span,
    set_outcome,
    span,
    trace_id,
    trace_link,
    traceparent_of,
    unrecorded,
    valid_traceparent,
)

__all__ = [
    "INHERITED",
    "LOG_FIELDS",
    "MOMENT",
    "SAFE_METHODS",
    "SPAN_ATTRIBUTES",
    "Attribute",
    "JobRoot",
    "JsonFormatter",
    "RequestSpan",
    "begin",
    "end",
    "job_span",
    "new_traceparent",
    "request_span",
    "set_outcome",
    "set_up",
    "span",
    "trace_id",
    "trace_link",
    "traceparent_of",
    "unrecorded",
    "valid_traceparent",
]


def set_up(service: str, settings: TelemetrySettings) -> None:
    """Log to stderr, and export spans if an OTLP endpoint is set."""
    logs.set_up(service, settings.log_level)
    if settings.otlp_endpoint:
        otlp.start(service, settings.otlp_endpoint)
