"""Bucket notifications: the store rings when an object was created, and it is taken at once, before any sweep.

Only a doorbell: what is lost here (the broker was down at the drop, this process died, a message made no sense) is
found by the sweep. So nothing is retried and nothing goes to a dead-letter topic, which would only copy object keys.
"""

from __future__ import annotations

import asyncio
import logging

from prometheus_client import Counter

from services.ingest.domain import datasets, notifications
from services.ingest.taking import Taking
from shared.errors import TransientError
from shared.objects import ObjectStore

log = logging.getLogger(__name__)

WORKERS = 4  # drops taken at a time: one of many gigabytes must not hold up the small ones behind it
WAITING = 1000  # keys held in memory; beyond, the rest waits in Kafka

_rung = Counter("tunestream_bucket_notifications_total", "Bucket notifications read", ["outcome"])


class Doorbell:
    def __init__(self, bucket: ObjectStore, taking: Taking) -> None:
        self._bucket = bucket
        self._taking = taking
        self._keys: asyncio.Queue[str] = asyncio.Queue(WAITING)

    async def rung(self, value: bytes) -> None:
        """Note which datasets a notification names."""
        try:
            keys = notifications.created_keys(value, self._bucket.bucket)
        except ValueError:
            _rung.labels("unreadable").inc()
            log.warning("a bucket notification cannot be read")
            return
        _rung.labels("read").inc()
        for key in filter(datasets.is_dataset, keys):
            await self._keys.put(key)

    async def run(self) -> None:
        """Take what was noted, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            key = await self._keys.get()
            try:
                await self._take(key)
            except TransientError as error:
                log.warning("left to the sweep", extra={"reason": type(error).__name__})

    async def _take(self, key: str) -> None:
        """Two questions whatever the size of the bucket: which object is that now, and which sidecars has it.

        Nothing waits for it to settle, as in the sweep: a put is atomic, and the store rings when the object is whole.
        """
        entry = await self._bucket.stat(key)
        if entry is not None:  # else it was deleted meanwhile
            beside = await self._bucket.list(datasets.sidecar_prefix(key))
            await self._taking.drop(entry, {sidecar.key: sidecar.etag for sidecar in beside})
