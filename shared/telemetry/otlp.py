"""Exports spans to an OTLP collector. A collector that is slow or away does not disturb the service."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

BATCH_MILLIS = 200
EXPORT_SECONDS = 5.0
FLUSH_SECONDS = 2.0  # the longest that a collector which does not answer may delay the end of a service
WARN_EVERY_SECONDS = 300.0

# these loggers report each failure of each batch, and each dropped span
NOISY = ("opentelemetry.exporter.otlp.proto.grpc.exporter", "opentelemetry.sdk._shared_internal")


class PatientExporter(SpanExporter):
    """Exports spans, and warns from time to time, not for every batch, that spans are lost."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._silent_until = 0.0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS and time.monotonic() >= self._silent_until:
            self._silent_until = time.monotonic() + WARN_EVERY_SECONDS
            log.warning(
                "traces are lost: no collector accepts them at TUNESTREAM_TELEMETRY__OTLP_ENDPOINT",
                extra={"count": len(spans)},
            )
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def start(service: str, endpoint: str) -> None:
    """Export the spans of this process as those of `service`."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # the flush at exit would wait half a minute for a collector that does not answer; `stop` waits for two seconds
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}), shutdown_on_exit=False)
    exporter = PatientExporter(OTLPSpanExporter(endpoint=endpoint, insecure=True, timeout=EXPORT_SECONDS))
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=BATCH_MILLIS))
    trace.set_tracer_provider(provider)


def stop() -> None:
    """Export the remaining spans, for at most `FLUSH_SECONDS`."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        flushing = threading.Thread(target=provider.shutdown, daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)
