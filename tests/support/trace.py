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
class Story:
    spans: list[Span]

    @classmethod
    def until(cls, stack: Jaeger, trace_id: str, condition: Callable[[Story], bool], seconds: float = 90) -> Story:
        deadline = time.monotonic() + seconds
        while True:
            (trace,) = stack.jaeger(f"/api/traces/{trace_id}")
            story = cls(sorted((_span(raw, trace["processes"]) for raw in trace["spans"]), key=lambda span: span.start))
            if condition(story):
                return story
            assert time.monotonic() < deadline, sorted({f"{span.service}: {span.name}" for span in story.spans})
            time.sleep(0.5)

    @property
    def services(self) -> set[str]:
        return {span.service for span in self.spans}

    @property
    def orphans(self) -> list[str]:
        known = {span.id for span in self.spans}
        return [span.name for span in self.spans if span.parent and span.parent not in known]

    def only(self, name: str) -> Span:
        (span,) = (span for span in self.spans if span.name == name)
        return span

    def names(self, service: str) -> set[str]:
        return {span.name for span in self.spans if span.service == service}

    def attempts(self, stage: str) -> int:
        return sum(span.name == f"{stage}.started" for span in self.spans)

    def first_request(self) -> Span:
        (span,) = (span for span in self.spans if span.tags.get("tunestream.first_request"))
        return span

    def below_first_request(self) -> set[str]:
        firsts = {span.id for span in self.spans if span.tags.get("tunestream.first_request")}
        return {span.name for span in self.spans if span.parent in firsts}

    def untold(self, stage: Span) -> float:
        """Seconds of a stage that lie in none of its phases."""
        told, until = 0.0, stage.start
        # in order of their starts; `{stage}.started` has no length to speak of
        for phase in (span for span in self.spans if span.name.startswith(f"{stage.name}.")):
            told += max(0.0, min(phase.end, stage.end) - max(phase.start, until))
            until = max(until, phase.end)
        return stage.end - stage.start - told


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
