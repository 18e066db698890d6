"""Finds new datasets by listing the bucket: slower than notifications, but it misses nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from services.ingest import metrics
from services.ingest.deduplicator import Deduplicator
from services.ingest.domain import datasets
from shared.errors import TransientError
from shared.settings import IngestSettings
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)


class Sweep:
    """Lists the bucket again and again, and makes the jobs of new datasets."""

    def __init__(
        self, bucket: ObjectStore, deduplicator: Deduplicator, settings: IngestSettings, clock: Callable[[], float]
    ) -> None:
        self._bucket = bucket
        self._deduplicator = deduplicator
        self._settings = settings
        self._clock = clock
        self._loaded = False
        self._etags: dict[str, str] = {}
        """The ETags of the last sweep: they show whether an object is still being overwritten."""

    async def run(self) -> None:
        """Sweep until cancelled, often while there is something new."""
        pause, found_at = self._settings.sweep_seconds, self._clock()
        while True:
            began = self._clock()
            try:
                if await self.sweep():
                    found_at = self._clock()
                metrics.sweeps.labels("completed").inc()
            except TransientError as error:
                metrics.sweeps.labels("cut_short").inc()
                log.warning("sweep cut short", extra={"reason": type(error).__name__})
            now = self._clock()
            pause = datasets.next_pause(pause, now - began, now - found_at, self._settings.sweep_seconds)
            await asyncio.sleep(pause)

    async def sweep(self) -> bool:
        """List the bucket and make the jobs of new datasets. True if there were any, even if they still have to
        settle."""
        if not self._loaded:
            await self._deduplicator.load()
            self._loaded = True
        listing = await self._bucket.list("")
        before, self._etags = self._etags, {entry.key: entry.etag for entry in listing}
        found = False
        for entry in listing:
            if not datasets.is_dataset(entry.key):
                continue
            if datasets.settled(entry, before.get(entry.key), self._clock(), self._settings.settle_seconds):
                found |= await self._deduplicator.ingest_drop(entry, self._etags)
            else:
                found = True
        return found
