"""Exporting spans: none is lost at the end, and an unreachable collector neither delays the service nor fills its
log."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from shared.telemetry.otlp import FLUSH_SECONDS, PatientExporter
from tests.support.fakes.servers import refusing_port

SERVICE = """
import sys, time
from shared import telemetry
from shared.telemetry import otlp
from shared.settings import TelemetrySettings
telemetry.set_up("validate", TelemetrySettings(otlp_endpoint=sys.argv[1]))
with telemetry.span("the last one"):
    pass
began = time.monotonic()
otlp.stop()
print(time.monotonic() - began)
"""


class Collector(TraceServiceServicer):
    def __init__(self) -> None:
        self.spans: list[tuple[str, str]] = []

    def Export(self, request: Any, context: Any) -> ExportTraceServiceResponse:
        for group in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in group.resource.attributes}
            self.spans += [(resource["service.name"], s.name) for scope in group.scope_spans for s in scope.spans]
        return ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server, received = grpc.server(futures.ThreadPoolExecutor(1)), Collector()
    add_TraceServiceServicer_to_server(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield received, f"http://127.0.0.1:{port}"
    server.stop(None)


def run_service(endpoint: str) -> tuple[float, str]:
    """Run a service. Returns how many seconds its end took, and what it logged."""
    command = [sys.executable, "-c", SERVICE, endpoint]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return float(process.stdout), process.stderr


def test_the_last_spans_of_a_service_are_not_lost(collector: tuple[Collector, str]) -> None:
    received, endpoint = collector
    run_service(endpoint)
    assert received.spans == [("validate", "the last one")]


def test_a_collector_that_is_away_neither_holds_up_the_end_nor_fills_the_log() -> None:
    with refusing_port() as port:
        ending, log = run_service(f"http://127.0.0.1:{port}")
    assert ending < FLUSH_SECONDS + 5
    assert log.count("\n") <= 1


def test_lost_spans_are_logged_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    class Away(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            return SpanExportResult.FAILURE

    patient = PatientExporter(Away())
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            assert patient.export([]) is SpanExportResult.FAILURE
    assert len(caplog.records) == 1
    assert "TUNESTREAM_TELEMETRY__OTLP_ENDPOINT" in caplog.text
