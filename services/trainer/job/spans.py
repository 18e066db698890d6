"""The spans of a training run. The service makes them, because the training process may be killed at any moment; the
trace then still shows how far it came."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from services.trainer.engine.messages import AnyMessage, PhaseBegan, StepDone
from shared import telemetry


class PhaseSpans:
    """One span per phase, exported when the next phase begins. The last one ends, or fails, with the `with` block."""

    def __init__(self, first: str) -> None:
        self._span = telemetry.begin(f"trainer.{first}")

    def observe(self, message: AnyMessage) -> None:
        """Follow a message of the training process."""
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
