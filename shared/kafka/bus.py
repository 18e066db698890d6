"""The connection of a service to Kafka: FastStream consumers, one producer, dead letters. See docs/architecture.md,
"The bus".

Delivery is at least once. `shared/kafka/guard.py` decides what becomes of a record whose handler fails, and
`shared/kafka/producer.py` how long publishing may take. Losing the connection never ends a service.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.exceptions import NackMessage
from faststream.kafka import KafkaBroker, KafkaMessage

from shared import ids
from shared.errors import ConfigError, EventRefused
from shared.events import Event
from shared.kafka import dead_letters, envelope
from shared.kafka.access import ConsumerLog
from shared.kafka.consumer import Consumer
from shared.kafka.diagnosis import find_cause
from shared.kafka.guard import Guard
from shared.kafka.producer import Outgoing, Producer
from shared.kafka.security import broker_security
from shared.kafka.subscription import CONNECT_PAUSES, Subscription
from shared.settings import BusSettings
from shared.tasks import cancel_and_wait
from shared.telemetry import metrics

log = logging.getLogger(__name__)
E = TypeVar("E", bound=Event)

LOOK_SECONDS = 0.5  # how often a start looks whether a consumer was refused


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What came with an event. If the sender gave no `ce_id`, it is derived from topic, partition and offset."""

    topic: str
    ce_id: str
    source: str
    traceparent: str | None
    time: float | None = None
    """When it happened, in seconds since the epoch; None: the sender did not say."""


class Bus:
    """One service's connection to the bus. Subscribe first, then `start`."""

    def __init__(self, settings: BusSettings, service: str, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._service = service
        self._clock = clock
        self._producer = Producer(settings)
        self._guard = Guard(settings, self._dead_letter)
        self._events: dict[str, type[Event]] = {}
        self._subscriptions: list[Subscription] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.broker = make_broker(settings, service)

    def subscribe(
        self,
        event_type: type[E],
        handler: Callable[[E, Delivery], Awaitable[None]],
        *,
        group: str | None = None,
    ) -> None:
        """Call `handler` for every event of `event_type`; replicas of a service share the group `{name}.{topic}`."""
        self._events[event_type.topic] = event_type

        async def take(record: Any) -> None:
            await handler(event_type.model_validate(envelope.parse(record.value)), delivery_of(record))

        self._subscribe(event_type.topic, take, group, optional=False)

    def subscribe_raw(self, topic: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        """Call `handler` with the bytes of every message of a topic that belongs to another system.

        The topic is optional: the service starts without it. It has no dead-letter topic: a message that `handler`
        cannot use is skipped.
        """

        async def take(record: Any) -> None:
            await handler(record.value or b"")

        self._subscribe(topic, take, None, optional=True)

    @property
    def away_since(self) -> float | None:
        """The time, on the monotonic clock, since which the broker does not answer; None if it does. Before the first
        connection: since the start began."""
        return self._producer.away_since

    def problem(self) -> str | None:
        """What is wrong with the connection, in a few words; None if everything is consumed."""
        if self.away_since is not None:
            return "the message bus does not answer"
        if not self._tasks:
            return "not connected"
        problems = (each.problem() for each in self._subscriptions if not each.optional)
        return next(filter(None, problems), None)

    async def start(self) -> None:
        """Connect and begin to consume, waiting for the broker as long as it takes.

        Raises:
            ConfigError: the broker refuses these settings; waiting does not help. Never after the first connection.
        """
        began = time.monotonic()
        for pause in CONNECT_PAUSES:
            try:
                await self._producer.start()
                break
            except Exception as error:
                self._producer.note_silence()
                await self._check_cause(error, began)
            await asyncio.sleep(pause)
        await self.broker.connect()  # makes the options of the consumers; nothing is sent
        config: Any = self.broker.config.broker_config
        config.builder = functools.partial(Consumer, **config.builder.keywords, unreadable=self._unreadable)
        # a consumer for each topic, because each join of a group may take seconds
        self._tasks = [asyncio.create_task(each()) for each in (self._producer.watch, *self._runs())]
        waiting = [asyncio.create_task(each.started.wait()) for each in self._subscriptions if not each.optional]
        refused: dict[int, Exception | None] = {}
        try:
            while waiting and not all(task.done() for task in waiting):
                await asyncio.wait(waiting, timeout=LOOK_SECONDS)
                for number, each in enumerate(self._subscriptions):
                    if not each.optional and each.error is not None and refused.get(number) is not each.error:
                        refused[number] = each.error
                        await self._check_cause(each.error, began)
        finally:
            await cancel_and_wait(*waiting)

    async def stop(self) -> None:
        """Leave the groups and close the connections. Ends within seconds, also while the broker is away."""
        tasks, self._tasks = self._tasks, []
        await cancel_and_wait(*tasks)
        await self._producer.stop()

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        record = record_of(
            event, ce_id=ce_id, source=self._service, subject=subject, time=self._clock(), traceparent=traceparent
        )
        await self._producer.send(f"{event.topic}/{ce_id}", record)
        metrics.messages_published.labels(event.topic).inc()

    # --- consuming --------------------------------------------------------------------------------------------

    def _subscribe(
        self, topic: str, take: Callable[[Any], Awaitable[None]], group: str | None, *, optional: bool
    ) -> None:
        subscriber = self.broker.subscriber(
            topic,
            # a group of its own per topic: members of one group wait for each other at every join
            group_id=f"{group or self._service}.{topic}",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._settings.fetch_max_wait_ms,
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=self._settings.session_timeout_ms // 5,
            # FastStream would send an answer to the topic that a header of the record names
            no_reply=True,
        )

        async def handle(message: KafkaMessage) -> None:
            record = message.raw_message
            if not await self._guard.handle(record, lambda: take(record)):
                self._hold(message.consumer, record)
                raise NackMessage

        subscriber(handle)
        self._subscriptions.append(Subscription(subscriber, optional=optional))

    def _runs(self) -> list[Callable[[], Any]]:
        return [each.run for each in self._subscriptions]

    def _hold(self, consumer: Any, record: Any) -> None:
        """Let the partition of `record` rest; the other ones are read meanwhile."""
        partition = TopicPartition(record.topic, record.partition)
        assignment = consumer.assignment

        def resume() -> None:
            if partition in assignment():
                consumer.resume(partition)

        if partition in assignment():
            consumer.pause(partition)
            asyncio.get_running_loop().call_later(self._settings.retry_pause_seconds, resume)

    async def _check_cause(self, error: Exception, began: float) -> None:
        """Raise ConfigError if waiting does not help against `error`, which a client raised at its start."""
        if isinstance(error, ConfigError):
            raise error
        try:
            cause = await find_cause(self._settings, error)
        except (KafkaError, OSError, ValueError):
            cause = None
        if cause and time.monotonic() - began >= cause.patience_seconds:
            raise ConfigError(cause.line) from None
        line = cause.line if cause else f"no Kafka broker answers yet at {self._settings.bootstrap}"
        log.warning(line, extra={"reason": type(error).__name__})

    # --- dead letters -----------------------------------------------------------------------------------------

    async def _dead_letter(self, record: Any, error: Exception) -> None:
        if (event_type := self._events.get(record.topic)) is not None:
            await dead_letters.write(self._producer.send, record, error, group=self._service, event_type=event_type)

    async def _unreadable(self, topic: str, partition: int, offset: int, reason: str) -> None:
        log.warning("dead letter", extra={"topic": topic, "reason": reason, "offset": offset})
        metrics.dead_letters.labels(topic, reason).inc()
        if topic in self._events:
            ours = envelope.dead_letter_headers(topic, partition, offset, reason=reason, group=self._service)
            await dead_letters.write_place(self._producer.send, topic, partition, offset, ours, "unreadable")


def make_broker(settings: BusSettings, service: str) -> KafkaBroker:
    """The one place that decides how messages are consumed. It only consumes: our own producer sends."""
    return KafkaBroker(
        settings.bootstrap,
        security=broker_security(settings),
        client_id=f"tunestream-{service}",
        consumer_only=True,
        parser=_parser,
        decoder=_decoder,
        allow_auto_create_topics=False,
        graceful_timeout=1.0,
        logger=ConsumerLog(settings),
    )


async def _parser(record: ConsumerRecord, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """The message of a record. FastStream sees no headers: one that is not UTF-8 makes its parser raise, and others
    mean something to it. Ours are read by `delivery_of`."""
    message = await original(dataclasses.replace(record, headers=()))
    message.raw_message = record
    return message


async def _decoder(message: Any) -> Any:
    """Leave the value as it is: it is parsed under the guard."""
    return message.body


def record_of(
    event: Event, *, ce_id: str, source: str, subject: str | None, time: float, traceparent: str | None
) -> Outgoing:
    """The record of an event. `source` is the service, `subject` the job id, `time` in seconds since the epoch.

    Raises:
        EventRefused: it holds what no record can hold, such as half a surrogate pair.
    """
    try:
        headers = envelope.headers(
            event, ce_id=ce_id, source=source, subject=subject, time=time, traceparent=traceparent
        )
        return Outgoing(event.topic, envelope.body(event), subject.encode() if subject else None, headers)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise EventRefused(f"the event cannot be written as a record: {type(error).__name__}") from error


def delivery_of(record: Any) -> Delivery:
    """What came with the event in `record`, which has the fields of aiokafka's `ConsumerRecord`."""
    fields = envelope.decode(record.headers)
    return Delivery(
        topic=record.topic,
        ce_id=fields.get("ce_id") or ids.event_id("stranger", record.topic, record.partition, record.offset),
        source=fields.get("ce_source", ""),
        traceparent=fields.get("traceparent"),
        time=envelope.time_of(fields),
    )
