"""The guard around each record: whatever a record holds, and whatever its handler raises, the consumer reads on.

What a handler raises decides:
- `TransientError` and `ConfigError` (something is away, a key was rotated) are not the record's fault: it is delivered
  again after a pause, so that an outage never empties a topic into its dead letters. After `bus.redelivery_hours`
  it becomes a dead letter nevertheless, because the records behind it wait;
- any other exception, also that of a value that cannot be parsed, makes it a dead letter at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from shared.errors import ConfigError, TransientError
from shared.retry import retry
from shared.settings import BusSettings
from shared.telemetry import metrics

log = logging.getLogger(__name__)

QUICK_PAUSES = (0.1, 0.5, 2.0)  # seconds; together far below the 5 minutes after which Kafka expels a consumer
HANDLER_SECONDS = 120.0
"""Handlers only note what they are told, so one that takes longer hangs."""

DeadLetter = Callable[[Any, Exception], Awaitable[None]]
"""Writes the dead letter of a record. It raises `TransientError` if that may succeed later."""


class HandlerStuck(TransientError):
    """A handler took too long, or was cancelled by something that it waited for."""


@dataclass(frozen=True)
class _Held:
    """A record that was not handled yet. `since` is the time by the monotonic clock."""

    offset: int
    since: float


class Guard:
    """Handles the records of one service. A record has the fields of aiokafka's `ConsumerRecord`."""

    def __init__(
        self, settings: BusSettings, dead_letter: DeadLetter, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = settings.redelivery_hours * 3600
        self._dead_letter = dead_letter
        self._clock = clock
        self._held: dict[tuple[str, int], _Held] = {}
        """At most one record for each topic and partition: those behind it wait."""

    async def handle(self, record: Any, work: Callable[[], Awaitable[None]]) -> bool:
        """Do `work` for `record`. Returns whether the record is done with; if not, it is to be delivered again after a
        pause. Only a cancellation is raised."""
        place = (record.topic, record.partition)
        held = self._held.get(place)
        again = held is not None and held.offset == record.offset
        if held is None or not again:
            held = self._held[place] = _Held(record.offset, self._clock())
        error = await _attempt(work, () if again else QUICK_PAUSES)
        if error is None:
            metrics.messages_consumed.labels(record.topic, "handled").inc()
        else:
            reason = type(error).__name__
            if isinstance(error, TransientError | ConfigError) and self._clock() - held.since < self._limit:
                return _later(record, reason)
            try:
                await self._dead_letter(record, error)
            except TransientError:
                return _later(record, "DeadLetterUnavailable")
            except Exception:
                log.exception("a dead letter could not be written", extra={"topic": record.topic})
                return _later(record, "DeadLetterUnavailable")
            metrics.dead_letters.labels(record.topic, reason).inc()
            log.warning("dead letter", extra={"topic": record.topic, "reason": reason, "offset": record.offset})
        del self._held[place]
        return True


def _later(record: Any, reason: str) -> bool:
    metrics.messages_consumed.labels(record.topic, "redelivered").inc()
    log.warning("delivered again later", extra={"topic": record.topic, "reason": reason})
    return False


async def _attempt(work: Callable[[], Awaitable[None]], pauses: tuple[float, ...]) -> Exception | None:
    """Do `work`. Returns what it raised."""
    task = asyncio.current_task()
    assert task is not None
    cancelled = task.cancelling()
    try:
        async with asyncio.timeout(HANDLER_SECONDS) as limit:
            await retry(work, on=TransientError, pauses=pauses)
    except asyncio.CancelledError:
        if task.cancelling() > cancelled:  # the service stops; the record is delivered again
            raise
        return HandlerStuck("what the handler waited for was cancelled")  # which must not end the consumer
    except Exception as error:
        return HandlerStuck("the handler takes too long") if limit.expired() else error
    return None
