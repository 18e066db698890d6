"""Fixtures for all unit tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.spans import Spans

# Read when torch is loaded. Its threads would spin while they wait for each other, and beside another worker of
# pytest-xdist that takes the time in which the others would be done: 93 s for 9 s of pretraining, on two busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# how long an example takes depends on what else the machine does
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")


@cache
def _let_hypothesis_read_the_project() -> None:
    """At one of its first draws, hypothesis reads the constants of all imported modules. With the whole project
    that takes a second or more, and would count as an example that is too slow to draw."""

    @settings(database=None, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.text(), st.integers())
    def draw(_text: str, _number: int) -> None: ...

    draw()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if hasattr(getattr(item, "obj", None), "hypothesis"):
        _let_hypothesis_read_the_project()


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
