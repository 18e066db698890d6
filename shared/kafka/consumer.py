"""aiokafka's consumer, which here also gets past records that it cannot read.

A stranger can compress with a codec that is not installed, or send a damaged batch. aiokafka raises at such a record
each time, and never goes past it. Here its place becomes a dead letter, and the consumer reads on behind it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import ConsumerStoppedError, CorruptRecordException, KafkaError, UnsupportedCodecError

from shared.errors import TransientError

log = logging.getLogger(__name__)

READ_TRIES = 3
"""How often a record is fetched before it counts as unreadable: the damage may have come from the network."""
PAUSE = 1.0

Unreadable = Callable[[str, int, int, str], Awaitable[None]]
"""Keeps the place of a record: topic, partition, offset, reason. It raises `TransientError` if the bus is away."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """A consumer that calls `unreadable` for a record that cannot be read, and skips it."""

    def __init__(self, *args: Any, unreadable: Unreadable, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unreadable = unreadable
        self._tries: dict[TopicPartition, tuple[int, int]] = {}
        """The offset that could not be read, and how often it was tried."""

    async def getone(self, *partitions: TopicPartition) -> ConsumerRecord[Any, Any]:
        while True:
            try:
                return await super().getone(*partitions)
            except ConsumerStoppedError:
                raise
            except Exception as error:
                of_records = isinstance(error, CorruptRecordException | UnsupportedCodecError)
                if isinstance(error, KafkaError) and not of_records:
                    raise
                found = self._broken()
                if found is None:
                    if isinstance(error, KafkaError):
                        raise
                    # FastStream pauses after a KafkaError; after any other it would try again without a pause
                    raise KafkaError(f"a record cannot be read: {type(error).__name__}") from error
                await self._pass(*found, type(error).__name__)

    def _broken(self) -> tuple[TopicPartition, int] | None:
        """The partition whose records raised, and the offset of the first one that was not handed out."""
        for partition, fetched in list(self._fetcher._records.items()):
            records = getattr(fetched, "_partition_records", None)
            iterator = getattr(records, "_records_iterator", None)
            # a generator that has raised has no frame; one that came to its end is removed by aiokafka
            if iterator is not None and getattr(iterator, "gi_frame", None) is None and records is not None:
                return partition, records.next_fetch_offset
        return None

    async def _pass(self, partition: TopicPartition, offset: int, reason: str) -> None:
        last, tries = self._tries.get(partition, (offset, 0))
        tries = tries + 1 if last == offset else 1
        self._tries[partition] = (offset, tries)
        if tries < READ_TRIES:
            self.seek(partition, offset)
            return
        try:
            await self._unreadable(partition.topic, partition.partition, offset, reason)
        except TransientError:
            await asyncio.sleep(PAUSE)
            self.seek(partition, offset)
            return
        del self._tries[partition]
        self.seek(partition, offset + 1)
