"""The spans of a training run, made here from what its process tells: the process may be killed at any moment, and what
it had reached by then is in the trace."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from services.trainer.messages import AnyMessage, PhaseBegan, StepDone
from shared import telemetry


class Phases:
    """One phase at a time, each with a span that is exported when the next one begins. The last one ends, or fails,
    with the block."""

    def __init__(self, first: str) -> None:
        self._span = telemetry.begin(f"trainer.{first}")

    def hear(self, message: AnyMessage) -> None:
        """Take a message of the process."""
        if isinstance(message, PhaseBegan):
            telemetry.end(self._span, at=message.at)
            self._span = telemetry.begin(f"trainer.{message.phase}", at=message.at)
        elif isinstance(message, StepDone):
            self._span.set_attribute("tunestream.step", message.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        telemetry.end(self._span, error)
