"""Fixtures for all unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(clock: Clock) -> FakeStore:
    """An object store with that clock."""
    return FakeStore(clock=clock)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spans]:
    """The spans that are exported while the test runs. At the end they are checked: none may hold what is not
    allowed."""
    exported, provider = Spans(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exported.exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exported
    exported.check()
