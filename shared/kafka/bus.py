"""The connection of a service to Kafka: FastStream consumers, one aiokafka producer, and a dead-letter middleware. See
docs/architecture.md, "The bus".

Delivery is at least once. What a handler raises decides:
- `TransientError`: a few quick retries, then the message is left uncommitted and comes again after a pause, so that
  an outage never empties a topic into its dead-letter topic;
- any other exception, also that of a message that cannot be parsed: the record goes to `{topic}.dlq` byte for byte,
  and its offset is committed.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from aiokafka import AIOKafkaProducer, ConsumerRecord
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from faststream import AckPolicy, BaseMiddleware
from faststream.exceptions import NackMessage
from faststream.kafka import KafkaBroker, KafkaMessage
from faststream.kafka.subscriber.usecase import DefaultSubscriber

from shared import ids
from shared.errors import ConfigError, TransientError
from shared.events import Event
from shared.kafka import envelope
from shared.kafka.access import ConsumerLog, denied
from shared.kafka.diagnosis import find_cause
from shared.kafka.envelope import DLQ_SUFFIX
from shared.kafka.security import broker_security, client_options
from shared.kafka.topics import MAX_LETTER_BYTES
from shared.retry import Backoff, retry
from shared.settings import BusSettings
from shared.tasks import cancel_and_wait
from shared.telemetry import metrics

log = logging.getLogger(__name__)
E = TypeVar("E", bound=Event)

CONNECT_PAUSES = Backoff(0.25, 3.0)
CONNECT_TRIES = 30
QUICK_PAUSES = (0.1, 0.5, 2.0)  # seconds; together far below the 5 minutes after which Kafka expels a consumer
OPTIONAL_PAUSE = 5.0  # seconds between two tries at a topic that may be missing


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
        self._producer: AIOKafkaProducer | None = None
        self._optional: list[DefaultSubscriber] = []
        self._starting: asyncio.Future[Any] | None = None
        self.broker = make_broker(settings, service, self._dead_letter)

    def subscribe(
        self,
        event_type: type[E],
        handler: Callable[[E, Delivery], Awaitable[None]],
        *,
        group: str | None = None,
    ) -> None:
        """Call `handler` for every event of `event_type`; replicas of a service share the group `{name}.{topic}`."""

        async def handle(event: E, message: KafkaMessage) -> None:
            await handler(event, _delivery(message))

        # FastStream takes the type to validate from the annotation, which a type variable cannot give it
        handle.__annotations__["event"] = event_type
        handle.__annotations__["message"] = KafkaMessage
        self._subscriber(event_type.topic, group)(handle)

    def subscribe_raw(self, topic: str, handler: Callable[[bytes], Awaitable[None]]) -> None:
        """Call `handler` with the bytes of every message of a topic that belongs to another system.

        The topic is optional: the service starts and is ready without it. It has no dead-letter topic, so `handler`
        must not raise for a message that it cannot use.
        """

        async def handle(message: KafkaMessage) -> None:
            record = message.raw_message
            assert isinstance(record, ConsumerRecord)
            await handler(record.value or b"")

        subscriber = self._subscriber(topic, None)
        subscriber(handle)
        self._optional.append(subscriber)

    @property
    def required(self) -> list[Any]:
        """The subscribers without which the service is not ready."""
        return [subscriber for subscriber in self.broker.subscribers if subscriber not in self._optional]

    def _subscriber(self, topic: str, group: str | None) -> DefaultSubscriber:
        return self.broker.subscriber(
            topic,
            # a group of its own per topic: members of one group wait for each other at every join
            group_id=f"{group or self._service}.{topic}",
            ack_policy=AckPolicy.NACK_ON_ERROR,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=self._settings.fetch_max_wait_ms,
            session_timeout_ms=self._settings.session_timeout_ms,
            heartbeat_interval_ms=self._settings.session_timeout_ms // 5,
        )

    async def start(self) -> None:
        """Connect, waiting for the broker with back-off.

        Raises:
            ConfigError: the broker did not answer within a minute, or waiting does not help.
        """
        began = time.monotonic()
        for pause in itertools.islice(CONNECT_PAUSES, CONNECT_TRIES):
            try:
                if self._producer is None:
                    self._producer = await self._start_producer()
                await self.broker.connect()
                # not broker.start(): it starts one after the other, and each join of a group may take seconds
                await asyncio.gather(*(subscriber.start() for subscriber in self.required))
                self._starting = asyncio.gather(*map(_start_when_there, self._optional))
                return
            except KafkaError as error:
                await self.broker.stop()
                cause = await find_cause(self._settings, error)
                if cause and time.monotonic() - began >= cause.patience_seconds:
                    raise ConfigError(cause.line) from None
                line = cause.line if cause else "the broker does not answer yet"
                log.warning(line, extra={"reason": type(error).__name__})
                await asyncio.sleep(pause)
        raise ConfigError(
            f"no Kafka broker answers at {self._settings.bootstrap} (TUNESTREAM_BUS__BOOTSTRAP): it is down, or the "
            "address is wrong"
        )

    async def stop(self) -> None:
        if self._starting is not None:
            await cancel_and_wait(self._starting)
        await self.broker.stop()
        if self._producer is not None:
            await self._producer.stop()
            self._producer = None

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        await self._send(
            event.topic,
            envelope.body(event),
            key=subject.encode() if subject else None,
            headers=envelope.headers(
                event,
                ce_id=ce_id,
                source=self._service,
                subject=subject,
                time=self._clock(),
                traceparent=traceparent,
            ),
        )
        metrics.messages_published.labels(event.topic).inc()

    async def _start_producer(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self._settings.bootstrap,
            acks="all",
            enable_idempotence=self._settings.idempotent,
            request_timeout_ms=15_000,
            max_request_size=MAX_LETTER_BYTES,
            **client_options(self._settings),
        )
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        return producer

    async def _send(self, topic: str, value: bytes | None, key: bytes | None, headers: envelope.Headers) -> None:
        if self._producer is None:
            raise TransientError("not connected to the bus")
        try:
            await self._producer.send_and_wait(topic, value=value, key=key, headers=headers)
        except KafkaError as error:
            # a missing ACL is transient, too: an operator's mistake must not lose the event
            if line := denied(error, self._settings, "write to"):
                log.error(line)
            raise TransientError(f"the event could not be published: {type(error).__name__}") from error

    async def _dead_letter(self, record: ConsumerRecord, reason: str) -> None:
        ours = envelope.dead_letter_headers(
            record.topic, record.partition, record.offset, reason=reason, group=self._service
        )
        topic = record.topic + DLQ_SUFFIX
        try:
            # other clients send records that have neither key nor value; aiokafka refuses to send them
            value = b"" if record.key is None and record.value is None else record.value
            await self._send(topic, value, record.key, [*record.headers, *ours])
        except TransientError as error:
            if not isinstance(error.__cause__, MessageSizeTooLargeError):
                raise
            # the record came compressed, or its topic allows larger ones. Only its place is kept, because a dead letter
            # that cannot be written would block all records after it
            omitted = str(len(record.value or b"")).encode()
            await self._send(topic, b"", None, [*ours, ("dlq_omitted", omitted)])


DeadLetter = Callable[[ConsumerRecord, str], Coroutine[Any, Any, None]]


def make_broker(settings: BusSettings, service: str, dead_letter: DeadLetter) -> KafkaBroker:
    """The one place that decides how messages are consumed."""

    class DeadLetterMiddleware(BaseMiddleware[Any, Any]):
        async def consume_scope(self, call_next: Callable[[Any], Awaitable[Any]], msg: Any) -> Any:
            return await retry(lambda: call_next(msg), on=TransientError, pauses=QUICK_PAUSES)

        async def after_processed(
            self,
            exc_type: type[BaseException] | None = None,
            exc_val: BaseException | None = None,
            exc_tb: TracebackType | None = None,
        ) -> bool | None:
            record: ConsumerRecord = self.msg
            if exc_val is None:
                metrics.messages_consumed.labels(record.topic, "handled").inc()
                return False
            if not isinstance(exc_val, Exception):  # cancelled: the service stops; the message is delivered again
                return False
            reason = type(exc_val).__name__
            if not isinstance(exc_val, TransientError):
                try:
                    await dead_letter(record, reason)
                except TransientError:
                    reason = "DeadLetterUnavailable"
                else:
                    metrics.dead_letters.labels(record.topic, reason).inc()
                    log.warning("dead letter", extra={"topic": record.topic, "reason": reason, "offset": record.offset})
                    return True
            metrics.messages_consumed.labels(record.topic, "redelivered").inc()
            log.warning("delivered again later", extra={"topic": record.topic, "reason": reason})
            await asyncio.sleep(settings.retry_pause_seconds)
            raise NackMessage from None

    return KafkaBroker(
        settings.bootstrap,
        security=broker_security(settings),
        client_id=f"tunestream-{service}",
        middlewares=[DeadLetterMiddleware],
        parser=_lenient_parser,
        decoder=_json_decoder,
        enable_idempotence=settings.idempotent,
        acks="all",
        allow_auto_create_topics=False,
        logger=ConsumerLog(settings),
    )


async def _lenient_parser(record: ConsumerRecord, original: Callable[[Any], Awaitable[Any]]) -> Any:
    """Make all headers UTF-8: on one that is not, FastStream's parser raises, and the record is dropped silently."""
    cleaned = tuple((name, text.encode()) for name, text in envelope.decode(record.headers).items())
    return await original(dataclasses.replace(record, headers=cleaned))


async def _json_decoder(message: Any) -> Any:
    """Every value is JSON. FastStream would decide by the content type, which others leave out or get wrong."""
    return envelope.parse(message.body)


async def _start_when_there(subscriber: DefaultSubscriber) -> None:
    """Start a subscriber as soon as its topic exists. aiokafka waits for a missing topic only for a while, then
    raises."""
    while True:
        try:
            await subscriber.start()
            return
        except KafkaError as error:
            await subscriber.stop()
            log.warning(
                "an optional topic cannot be read yet",
                extra={"topic": subscriber.topics[0], "reason": type(error).__name__},
            )
            await asyncio.sleep(OPTIONAL_PAUSE)


def _delivery(message: KafkaMessage) -> Delivery:
    record = message.raw_message
    assert isinstance(record, ConsumerRecord)
    return Delivery(
        topic=record.topic,
        ce_id=message.headers.get("ce_id") or ids.event_id("stranger", record.topic, record.partition, record.offset),
        source=message.headers.get("ce_source", ""),
        traceparent=message.headers.get("traceparent"),
        time=envelope.time_of(message.headers),
    )
