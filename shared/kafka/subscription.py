"""Keeps one subscriber consuming: starts it until it has started, and starts it anew if it ends."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from faststream.kafka.subscriber.usecase import DefaultSubscriber

from shared.retry import Backoff
from shared.tasks import try_within

log = logging.getLogger(__name__)

CONNECT_PAUSES = Backoff(0.25, 5.0)
LOOK_SECONDS = 5.0
"""How often it is checked that the consumer still runs."""
STOP_SECONDS = 3.0
"""A consumer that has not left its group by then is dropped; the broker notices by itself."""
STALLED_SECONDS = 60.0


class Subscription:
    """One subscriber of a service. `optional`: its topic belongs to another system, and may be missing."""

    def __init__(
        self, subscriber: DefaultSubscriber, *, optional: bool = False, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.subscriber = subscriber
        self.optional = optional
        self.started = asyncio.Event()
        """It has joined its group. (It may have no partitions: a group can have more members than partitions.)"""
        self.error: Exception | None = None
        """Why the last try at starting failed."""
        self._clock = clock
        self._polled = (0.0, clock())
        """The newest poll, by the clock of aiokafka, and when it was seen here."""

    @property
    def topic(self) -> str:
        return self.subscriber.topics[0].name

    async def run(self) -> None:
        """Keep the subscriber consuming until cancelled."""
        try:
            while True:
                await self._start()
                while self._runs():
                    await asyncio.sleep(LOOK_SECONDS)
                self.started.clear()
                log.error("a consumer has ended, and is started again", extra={"topic": self.topic})
                await self._stop()
        finally:
            self.started.clear()
            await self._stop()

    def problem(self) -> str | None:
        """Why it does not consume, in a few words; None if it does."""
        if not self.started.is_set():
            return f"not connected to {self.topic}"
        consumer = self.subscriber.consumer
        partitions = consumer.assignment() if consumer is not None else ()
        newest = max((consumer.last_poll_timestamp(each) or 0 for each in partitions), default=0) if consumer else 0
        if newest != self._polled[0] or not newest:
            self._polled = (newest, self._clock())
        if self._clock() - self._polled[1] > STALLED_SECONDS:
            return f"no poll of {self.topic} for a minute"
        return None

    async def _start(self) -> None:
        for pause in CONNECT_PAUSES:
            try:
                await self.subscriber.start()
            except Exception as error:
                self.error = error
                log.warning("a topic cannot be read yet", extra={"topic": self.topic, "reason": type(error).__name__})
                await self._stop()
                await asyncio.sleep(pause)
            else:
                self.error = None
                self.started.set()
                return

    def _runs(self) -> bool:
        """Whether the loop that takes records runs, and the tasks of aiokafka without which it would wait for ever."""
        consumer = self.subscriber.consumer
        if consumer is None or not any(not task.done() for task in self.subscriber.tasks):
            return False
        joining = getattr(consumer._coordinator, "_coordination_task", None)
        fetching = getattr(consumer._fetcher, "_fetch_task", None)
        return not any(task is not None and task.done() for task in (joining, fetching))

    async def _stop(self) -> None:
        consumer = self.subscriber.consumer
        await try_within(self.subscriber.stop, STOP_SECONDS)
        self.subscriber.consumer = None
        if consumer is not None:
            # with the broker away aiokafka does not come to these steps
            if consumer._coordinator is not None:
                await try_within(consumer._coordinator._stop_heartbeat_task, STOP_SECONDS)
            if consumer._fetcher is not None:
                await try_within(consumer._fetcher.close, STOP_SECONDS)
            await try_within(consumer._client.close, STOP_SECONDS)
