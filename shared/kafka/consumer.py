"""aiokafka's consumer, which here also gets past records that it cannot read, and past commits that fail.

A stranger can compress with a codec that is not installed, or send a damaged batch. aiokafka raises at such a record
each time, and never goes past it. Here its place becomes a dead letter, and the consumer reads on behind it.

A record whose offset is not committed is delivered again after a restart, which changes nothing: a result is decided
once. So a commit that the broker does not take is tried a few times, and then left to the commit of the next record.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    ConsumerStoppedError,
    CorruptRecordException,
    IllegalStateError,
    KafkaError,
    UnsupportedCodecError,
)

from shared.errors import TransientError
from shared.kafka.errors import passes_by_itself
from shared.retry import Backoff

log = logging.getLogger(__name__)

READ_TRIES = 3
"""How often a record is fetched before it counts as unreadable: the damage may have come from the network."""
PAUSE = 1.0
COMMIT_TRIES = 5
COMMIT_PAUSES = Backoff(0.25, 2.0)

Unreadable = Callable[[str, int, int, str], Awaitable[None]]
"""Keeps the place of a record: topic, partition, offset, reason. It raises `TransientError` if the bus is away."""


class Consumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka has no types
    """A consumer that calls `unreadable` for a record that cannot be read, and skips it."""

    def __init__(self, *args: Any, unreadable: Unreadable, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unreadable = unreadable
        self._tries: dict[TopicPartition, tuple[int, int]] = {}
        """The offset that could not be read, and how often it was tried."""

    async def commit(self, offsets: Any = None) -> None:
        """Commit `offsets`; by default of all records that were handed out.

        Raises:
            KafkaError: the commit is refused for a reason that does not pass: nothing that waiting would mend.
        """
        for pause in (*itertools.islice(COMMIT_PAUSES, COMMIT_TRIES - 1), None):
            try:
                await super().commit(offsets)
                return
            except (CommitFailedError, IllegalStateError):
                log.info("offsets are not committed: another consumer has the partitions, and reads the records again")
                return
            except KafkaError as error:
                if not passes_by_itself(error):
                    raise
                reason = type(error).__name__
            if pause is not None:
                await asyncio.sleep(pause)
        log.warning("offsets are not committed yet: they go with the next commit", extra={"reason": reason})

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
