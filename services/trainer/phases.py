"""The spans of a training run, made here from what its process tells: the process may be killed at any moment, and what
it had reached by then is in the trace."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from shared import telemetry


class Phases:
    """One phase at a time, each with a span that is exported when the next one begins. The last one ends, or fails,
    with the block."""

    def __init__(self, first: str) -> None:
        self._span = telemetry.begin(f"trainer.{first}")

    def hear(self, event: dict[str, Any]) -> None:
        """Take an event of the process."""
        if event["event"] == "phase":
            telemetry.end(self._span, at=event["at"])
            self._span = telemetry.begin(f"trainer.{event['phase']}", at=event["at"])
        elif event["event"] == "step":
            self._span.set_attribute("tunestream.step", event["step"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        telemetry.end(self._span, error)
