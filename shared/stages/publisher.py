"""The port through which the stage protocol sends events. `shared/kafka/bus.py` implements it over Kafka, `tests/sim`
in memory."""

from __future__ import annotations

from typing import Protocol

from shared.events import Event


class Publisher(Protocol):
    """Sends events."""

    @property
    def away_since(self) -> float | None:
        """Since when the bus does not answer, by the monotonic clock; None if it does."""
        ...

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        """Publish `event`; when this returns, the bus has it durably.

        Args:
            ce_id: the CloudEvents id: the same whenever the same event is published again.
            subject: the job id; the events of one subject keep their order.
            traceparent: the trace that the event belongs to.

        Raises:
            TransientError: the bus is away, or did not say within a few seconds that it has the event.
            EventRefused: the bus will never take this event.
        """
        ...
