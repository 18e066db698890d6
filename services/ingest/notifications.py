"""Bucket notifications: the store says that an object was created, and ingest makes its job at once, before any sweep.

They are only a doorbell: the sweep finds every drop whose notification was lost, because the broker was down, this
process died, or the message could not be read. So nothing is retried here, and nothing goes to a dead-letter topic,
which would only copy object keys.
"""

from __future__ import annotations

import asyncio
import logging

from services.ingest import metrics
from services.ingest.deduplicator import Deduplicator
from services.ingest.domain import datasets, notifications
from services.ingest.sweep import report
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

WORKERS = 4  # drops read at the same time: a huge one must not delay the small ones behind it
QUEUE_SIZE = 1000  # keys held in memory; further ones wait in Kafka


class BucketNotifications:
    """Makes the jobs of the datasets that notifications name."""

    def __init__(self, bucket: ObjectStore, deduplicator: Deduplicator) -> None:
        self._bucket = bucket
        self._deduplicator = deduplicator
        self._keys: asyncio.Queue[str] = asyncio.Queue(QUEUE_SIZE)

    async def received(self, value: bytes) -> None:
        """Queue the datasets that a notification names."""
        try:
            keys = notifications.created_keys(value, self._bucket.bucket)
        except Exception:  # this topic has no dead letters
            metrics.notifications.labels("unreadable").inc()
            log.warning("a bucket notification cannot be read")
            return
        metrics.notifications.labels("read").inc()
        for key in filter(datasets.is_dataset, keys):
            await self._keys.put(key)

    async def run(self) -> None:
        """Make the jobs of the queued datasets, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._keys.get()
            try:
                await self._ingest(key)
            except Exception as error:  # whatever it is: a notification is only a doorbell
                report("dataset not read, left to the sweep", error)

    async def _ingest(self, key: str) -> None:
        """Make the job of one dataset. This takes two requests, whatever the size of the bucket: for the object as it
        is now, and for its sidecars. Unlike the sweep, it need not wait for the object to settle: a put is atomic, and
        the store notifies when the object is whole.
        """
        entry = await self._bucket.stat(key)
        if entry is not None:  # None: it was deleted since
            beside = await self._bucket.list(datasets.sidecar_prefix(key))
            await self._deduplicator.ingest_drop(entry, {sidecar.key: sidecar.etag for sidecar in beside})
