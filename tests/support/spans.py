"""The spans that were exported during a test, found by their names and parents."""

from __future__ import annotations

import re
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.telemetry import SPAN_ATTRIBUTES

CLASS_OR_OUTCOME = re.compile(r"[A-Za-z_]+")


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    @property
    def all(self) -> Sequence[ReadableSpan]:
        """In the order in which they ended."""
        return self.exporter.get_finished_spans()

    def one(self, name: str) -> ReadableSpan:
        """The only span of this name."""
        found = [span for span in self.all if span.name == name]
        assert len(found) == 1, f"{len(found)} spans named {name!r} among {sorted(span.name for span in self.all)}"
        return found[0]

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.all if span.name == name]

    def below(self, parent: ReadableSpan | str) -> list[str]:
        """The names of the children, in the order in which they began."""
        above = parent_id(parent)
        children = [span for span in self.all if span.parent and f"{span.parent.span_id:016x}" == above]
        return [span.name for span in sorted(children, key=lambda span: span.start_time or 0)]

    def check(self) -> None:
        """Check that no span has an event, a message, or an attribute that is not allowed."""
        for span in self.all:
            assert set(span.attributes or {}) <= set(SPAN_ATTRIBUTES), span.name
            assert not span.events, span.name
            assert span.status.description is None or CLASS_OR_OUTCOME.fullmatch(span.status.description), span.name


def trace_of(span: ReadableSpan) -> str:
    return f"{span.context.trace_id:032x}"


def traceparent_of(span: ReadableSpan) -> str:
    return f"00-{trace_of(span)}-{span.context.span_id:016x}-{span.context.trace_flags:02x}"


def parent_id(parent: ReadableSpan | str) -> str:
    """The id of a span, or of the span that a `traceparent` names, in hexadecimal."""
    return parent.split("-")[2] if isinstance(parent, str) else f"{parent.context.span_id:016x}"
