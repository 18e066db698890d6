"""A job's trace, read back through Jaeger's HTTP API."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Jaeger(Protocol):
    def jaeger(self, path: str) -> Any: ...


@dataclass(frozen=True)
class Span:
    """Times in seconds since the epoch."""

    id: str
    name: str
    service: str
    parent: str | None
    start: float
    end: float
    tags: dict[str, Any]


@dataclass(frozen=True)
class Trace:
    """The spans of one trace, in the order of their starts."""

    spans: list[Span]

    @classmethod
    def until(cls, stack: Jaeger, trace_id: str, condition: Callable[[Trace], bool], seconds: float = 90) -> Trace:
        """Read the trace again and again until it meets the condition: services export their spans with a delay."""
        deadline = time.monotonic() + seconds
        while True:
            (raw,) = stack.jaeger(f"/api/traces/{trace_id}")
            trace = cls(sorted((_span(span, raw["processes"]) for span in raw["spans"]), key=lambda span: span.start))
            if condition(trace):
                return trace
            assert time.monotonic() < deadline, sorted({f"{span.service}: {span.name}" for span in trace.spans})
            time.sleep(0.5)

    @property
    def services(self) -> set[str]:
        return {span.service for span in self.spans}

    @property
    def orphans(self) -> list[str]:
        """The names of the spans whose parent is not in the trace."""
        known = {span.id for span in self.spans}
        return [span.name for span in self.spans if span.parent and span.parent not in known]

    def only(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def names(self, service: str) -> set[str]:
        return {span.name for span in self.spans if span.service == service}

    def attempts(self, stage: str) -> int:
        """How many attempts at a stage were started."""
        return sum(span.name == f"{stage}.started" for span in self.spans)

    def first_request(self) -> Span:
        """The first request to the deployed model."""
        (span,) = (span for span in self.spans if span.tags.get("tunestream.first_request"))
        return span

    def below_first_request(self) -> set[str]:
        """The names of the children of the first request to the deployed model."""
        firsts = {span.id for span in self.spans if span.tags.get("tunestream.first_request")}
        return {span.name for span in self.spans if span.parent in firsts}

    def outside_phases(self, stage: Span) -> float:
        """How many seconds of a stage are in none of its phases."""
        inside, until = 0.0, stage.start
        # in the order of their starts; the span `{stage}.started` takes next to no time
        for phase in (span for span in self.spans if span.name.startswith(f"{stage.name}.")):
            inside += max(0.0, min(phase.end, stage.end) - max(phase.start, until))
            until = max(until, phase.end)
        return stage.end - stage.start - inside


def _span(raw: dict[str, Any], processes: dict[str, Any]) -> Span:
    parents = [reference["spanID"] for reference in raw["references"] if reference["refType"] == "CHILD_OF"]
    start = raw["startTime"] / 1e6
    return Span(
        id=raw["spanID"],
        name=raw["operationName"],
        service=processes[raw["processID"]]["serviceName"],
        parent=parents[0] if parents else None,
        start=start,
        end=start + raw["duration"] / 1e6,
        tags={tag["key"]: tag["value"] for tag in raw["tags"]},
    )
