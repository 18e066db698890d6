"""Brokers for tests, which write and read raw records beside our own bus. This module has the real broker;
`tests.support.fakes.bus.FakeBroker` has the same methods."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from shared.events import Event
from shared.kafka.bus import Bus
from shared.settings import BusSettings


class Broker(Protocol):
    def bus(self, service: str) -> Bus:
        """The bus of the service named `service`, not started yet."""
        ...

    async def send(
        self, topic: str, *values: bytes | None, key: bytes | None = None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        """Write a record for each value, all of them to the first partition."""
        ...

    async def read(self, topic: str, wanted: int, matching: Callable[[Any], bool] = ...) -> Sequence[Any]:
        """The first `wanted` records of a topic that match. Waits for them."""
        ...


class KafkaBroker:
    """A real broker without encryption or passwords."""

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings

    def bus(self, service: str) -> Bus:
        return Bus(self._settings, service)

    @asynccontextmanager
    async def producer(self) -> AsyncIterator[AIOKafkaProducer]:
        """A client of a stranger. It sends records of up to 8 MiB."""
        producer = AIOKafkaProducer(bootstrap_servers=self._settings.bootstrap, max_request_size=8 * 2**20)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def send(
        self, topic: str, *values: bytes | None, key: bytes | None = None, headers: Iterable[tuple[str, bytes]] = ()
    ) -> None:
        async with self.producer() as producer:
            for value in values:
                # `send` refuses a record without key and value; a batch accepts it
                if value is None and key is None:
                    batch = producer.create_batch()
                    batch.append(key=None, value=None, timestamp=None, headers=list(headers))
                    await (await producer.send_batch(batch, topic, partition=0))
                else:
                    await producer.send_and_wait(topic, value, key=key, partition=0, headers=list(headers))

    async def read(
        self, topic: str, wanted: int, matching: Callable[[Any], bool] = lambda record: True
    ) -> Sequence[Any]:
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self._settings.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        records: list[Any] = []
        try:
            while len(records) < wanted:
                record = await consumer.getone()
                if matching(record):
                    records.append(record)
        finally:
            await consumer.stop()
        return records


@asynccontextmanager
async def running(broker: Broker, service: str, *subscriptions: tuple[type[Event], Any]) -> AsyncIterator[Bus]:
    """A service's bus, started, with a handler for each event type."""
    bus = broker.bus(service)
    for event_type, handler in subscriptions:
        bus.subscribe(event_type, handler)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()
