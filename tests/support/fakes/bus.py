"""The bus in memory: the one fake of `shared.kafka.bus.Bus`, and the broker behind it.

`tests/contract/bus_suite.py` runs the same tests against this fake and against a real broker.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from shared.errors import EventRefused, TransientError
from shared.events import Event
from shared.kafka import dead_letters, envelope
from shared.kafka.bus import Bus, Delivery, delivery_of, record_of
from shared.kafka.guard import Guard
from shared.kafka.producer import Outgoing
from shared.kafka.topics import MAX_LETTER_BYTES
from shared.settings import BusSettings

Handler = Callable[[Any, Delivery], Awaitable[None]]


@dataclass(frozen=True)
class Record:
    """One message as it lies in a topic. It has the fields of aiokafka's `ConsumerRecord` that tests read."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


class FakeBroker:
    """Topics of one partition each."""

    def __init__(self) -> None:
        self.topics: dict[str, list[Record]] = defaultdict(list)
        self.committed: Counter[tuple[str, str]] = Counter()
        """The next offset, by consumer group and topic."""
        self._members: dict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._grown = asyncio.Event()

    def bus(self, service: str) -> FakeBus:
        return FakeBus(self, service)

    async def send(
        self, topic: str, *values: bytes | None, key: bytes | None = None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """Append a record for each value."""
        for value in values:
            self.append(topic, value, key, headers)

    async def read(
        self, topic: str, wanted: int, matching: Callable[[Record], bool] = lambda record: True
    ) -> list[Record]:
        """The first `wanted` records of a topic that match. Waits for them."""
        while True:
            grown = self._grown
            records = [record for record in self.topics[topic] if matching(record)]
            if len(records) >= wanted:
                return records[:wanted]
            await grown.wait()

    def append(
        self, topic: str, value: bytes | None, key: bytes | None = None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        records = self.topics[topic]
        records.append(Record(topic, 0, len(records), key, value, tuple(headers)))
        self._grown.set()
        self._grown = asyncio.Event()

    async def consume(self, group: str, topic: str, handle: Callable[[Record], Awaitable[None]]) -> None:
        """Pass every record to `handle`, oldest first, and commit it afterwards. One member of a group has the
        partition; the others wait for it to leave."""
        async with self._members[group, topic]:
            while True:
                grown = self._grown
                while (offset := self.committed[group, topic]) < len(self.topics[topic]):
                    await handle(self.topics[topic][offset])
                    self.committed[group, topic] += 1
                await grown.wait()


@dataclass(frozen=True)
class Published:
    """One call of `publish`."""

    event: Event
    ce_id: str
    subject: str | None
    traceparent: str | None


class FakeBus(Bus):
    """One service's connection to a fake broker. While `available` is False nothing can be published.

    Most tests only look at `published`; after `start` the fake consumes as the real bus does. A test that needs a slow
    or broken bus overrides `before` or `after`, which are awaited around every publish.
    """

    def __init__(
        self, broker: FakeBroker | None = None, service: str = "test", clock: Callable[[], float] = time.time
    ) -> None:
        self.fake_broker = broker or FakeBroker()
        self.published: list[Published] = []
        self.subscribed: list[tuple[type[Event], Handler, str | None]] = []
        self.available = True
        self._service = service
        self._clock = clock
        self._consumers: list[asyncio.Task[None]] = []

    # --- hooks ------------------------------------------------------------------------------------------------

    async def before(self, event: Event) -> None:
        """Awaited before every publish. An error raised here means that nothing was published."""
        if not self.available:
            raise TransientError("the event could not be published: a test said so")

    async def after(self, event: Event) -> None:
        """Awaited after every publish. An error raised here is a lost acknowledgement: the event is published."""

    def send(self, message: Published) -> None:
        """Every publish ends here."""
        record = record_of(
            message.event,
            ce_id=message.ce_id,
            source=self._service,
            subject=message.subject,
            time=self._clock(),
            traceparent=message.traceparent,
        )
        if len(record.value or b"") > MAX_LETTER_BYTES:
            raise EventRefused("the event is too large")
        self.published.append(message)
        self.fake_broker.append(record.topic, record.value, record.key, record.headers)

    # --- the interface of the real bus ------------------------------------------------------------------------

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        await self.before(event)
        self.send(Published(event, ce_id, subject, traceparent))
        await self.after(event)

    def subscribe(self, event_type: type[Event], handler: Handler, *, group: str | None = None) -> None:
        self.subscribed.append((event_type, handler, group))

    def subscribe_raw(self, topic: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        raise NotImplementedError("no test needs it")

    @property
    def away_since(self) -> float | None:
        return None if self.available else 0.0

    def problem(self) -> str | None:
        return None if self.available else "the message bus does not answer"

    async def start(self) -> None:
        for event_type, handler, group in self.subscribed:
            self._consumers.append(asyncio.create_task(self._consume(event_type, handler, group or self._service)))

    async def stop(self) -> None:
        for task in self._consumers:
            task.cancel()
        await asyncio.gather(*self._consumers, return_exceptions=True)
        self._consumers.clear()

    # --- what a test sees ----------------------------------------------------------------------------

    def events(self, kind: type[Event] = Event) -> list[Event]:
        """The published events of a kind."""
        return [published.event for published in self.published if isinstance(published.event, kind)]

    # --- consuming --------------------------------------------------------------------------------------------

    async def _consume(self, event_type: type[Event], handler: Handler, group: str) -> None:
        async def dead_letter(record: Record, error: Exception) -> None:
            await dead_letters.write(self._send_letter, record, error, group=self._service, event_type=event_type)

        guard = Guard(BusSettings(), dead_letter)

        async def handle(record: Record) -> None:
            async def take() -> None:
                await handler(event_type.model_validate(envelope.parse(record.value)), delivery_of(record))

            while not await guard.handle(record, take):
                await asyncio.sleep(0.001)

        await self.fake_broker.consume(f"{group}.{event_type.topic}", event_type.topic, handle)

    async def _send_letter(self, identity: str, letter: Outgoing) -> None:
        self.fake_broker.append(letter.topic, letter.value, letter.key, letter.headers)
