"""Reads the dead-letter topics of a broker, and sends letters again. It reads without a consumer group, so reading
changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from types import TracebackType

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from cli.dlq.letter import Letter
from cli.terminal import NO_STACK, CliError
from shared.kafka.diagnosis import find_cause
from shared.kafka.envelope import DLQ_SUFFIX
from shared.kafka.security import client_options
from shared.kafka.topics import MAX_LETTER_BYTES
from shared.settings import BusSettings

FETCH_MILLIS = 50
STALL_SECONDS = 30.0


class DeadLetters:
    """The dead letters of a broker; an async context manager. Every method may raise `CliError`.

    Raises:
        ConfigError: our own certificate or key cannot be used.
    """

    def __init__(self, settings: BusSettings) -> None:
        self._settings = settings
        self._bootstrap = settings.bootstrap
        self._security = client_options(settings)
        self._consumer = AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=FETCH_MILLIS,
            **self._security,
        )
        self._producer: AIOKafkaProducer | None = None

    async def __aenter__(self) -> DeadLetters:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # aiokafka logs each refused connection
        try:
            await self._consumer.start()
        except (KafkaError, OSError) as error:
            await self._consumer.stop()
            if cause := await find_cause(self._settings, error):
                raise CliError(cause.line) from None
            raise self._unreachable(error) from None
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()
        if self._producer:
            await self._producer.stop()

    async def topics(self, wanted: str | None = None) -> list[str]:
        """All dead-letter topics, or only that of the topic `wanted` (with or without `.dlq`)."""
        try:
            found = sorted(topic for topic in await self._consumer.topics() if topic.endswith(DLQ_SUFFIX))
        except KafkaError as error:
            raise self._unreachable(error) from None
        if wanted is None:
            return found
        topic = wanted.removesuffix(DLQ_SUFFIX) + DLQ_SUFFIX
        if topic not in found:
            there = ", ".join(name.removesuffix(DLQ_SUFFIX) for name in found) or "none at all"
            raise CliError(f"there is no topic {topic} on {self._bootstrap}", f"there are dead letters of: {there}")
        return [topic]

    async def read(self, topics: Sequence[str], first: int = 0) -> AsyncIterator[Letter]:
        """The letters that the topics hold now, from offset `first` on; those of one topic in order. Letters that
        arrive during the reading are left out.
        """
        # dead-letter topics have one partition each
        unread = {TopicPartition(topic, 0) for topic in topics}
        self._consumer.assign(list(unread))
        if first:
            for partition in unread:
                self._consumer.seek(partition, first)
        # the first fetch tells where a topic ends, because Tansu answers a request for the end offset with an old one
        ends: dict[TopicPartition, int] = {}
        clock = asyncio.get_running_loop().time
        heard = clock()
        try:
            while unread:
                batches = await self._consumer.getmany(*unread, timeout_ms=FETCH_MILLIS)
                for partition in list(unread):
                    if partition not in ends and (end := self._consumer.highwater(partition)) is not None:
                        ends[partition] = end
                    for record in batches.get(partition, ()):
                        if record.offset < ends[partition]:
                            yield _letter(record)
                    if partition in ends and await self._consumer.position(partition) >= ends[partition]:
                        unread.remove(partition)
                        heard = clock()
                if batches:
                    heard = clock()
                elif clock() - heard > STALL_SECONDS:
                    raise CliError(f"{self._bootstrap} sends no more letters", "it may be overloaded: try again")
        except KafkaError as error:
            message = f"{self._bootstrap} does not give {', '.join(topics)} ({type(error).__name__})"
            raise CliError(message, "may this user read it? docs/events.md says what a user may") from None

    async def at(self, topic: str, offset: int) -> Letter:
        """The letter at one offset."""
        async for letter in self.read([topic], offset):
            if letter.offset == offset:
                return letter
            break
        raise CliError(f"{topic} has no letter at offset {offset}", f"`tunestream dlq list {topic}` says what it has")

    async def replay(self, letter: Letter) -> None:
        """Publish the original record again. Returns when the broker has stored it."""
        try:
            if self._producer is None:
                # without idempotence: some brokers refuse it, and a repeated event makes no second job
                self._producer = AIOKafkaProducer(
                    bootstrap_servers=self._bootstrap,
                    acks="all",
                    max_request_size=MAX_LETTER_BYTES,
                    **self._security,
                )
                await self._producer.start()
            await self._producer.send_and_wait(
                letter.source, value=letter.value, key=letter.key, headers=letter.own_headers
            )
        except KafkaError as error:
            raise CliError(f"{letter.source} does not take it: {type(error).__name__}") from None

    def _unreachable(self, error: Exception) -> CliError:
        return CliError(
            f"no Kafka broker answers at {self._bootstrap} ({type(error).__name__}): it is down, or the "
            "address is wrong",
            NO_STACK,
        )


def _letter(record: ConsumerRecord) -> Letter:
    return Letter(
        topic=record.topic,
        offset=record.offset,
        time=record.timestamp / 1000,
        key=record.key,
        value=record.value,
        headers=tuple(record.headers),
    )
