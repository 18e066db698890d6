"""Finds new datasets by listing the bucket: slower than notifications, but it misses nothing."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from services.ingest import metrics
from services.ingest.deduplicator import Deduplicator
from services.ingest.domain import datasets
from shared.errors import ConfigError, TransientError, TunestreamError
from shared.retry import Backoff
from shared.settings import IngestSettings
from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)


class Sweep:
    """Lists the bucket again and again, and makes the jobs of new datasets."""

    def __init__(
        self,
        bucket: ObjectStore,
        deduplicator: Deduplicator,
        settings: IngestSettings,
        timer: Callable[[], float] = time.monotonic,
        listed: Callable[[Sequence[Entry]], None] = lambda listing: None,
    ) -> None:
        """`listed` is told of everything that a sweep finds in the bucket."""
        self._bucket = bucket
        self._deduplicator = deduplicator
        self._settings = settings
        self._listed = listed
        self._timer = timer
        self._etags: dict[str, str] = {}
        """The ETags of the last sweep: they show whether an object is still being overwritten."""

    async def run(self) -> None:
        """Sweep until cancelled, often while there is something new."""
        pause, found_at, failures = self._settings.sweep_seconds, self._timer(), 0
        after_failure = Backoff(max(self._settings.sweep_seconds, 0.2), datasets.LONGEST_PAUSE)
        while True:
            began = self._timer()
            try:
                if await self.sweep():
                    found_at = self._timer()
            except Exception as error:  # the listing failed, or the whole store; one object cannot do that
                failures += 1
                metrics.sweeps.labels("cut_short").inc()
                report("sweep cut short", error)
                await asyncio.sleep(after_failure.jittered(failures))
                continue
            failures = 0
            metrics.sweeps.labels("completed").inc()
            now = self._timer()
            pause = datasets.next_pause(pause, now - began, now - found_at, self._settings.sweep_seconds)
            await asyncio.sleep(pause)

    async def sweep(self) -> bool:
        """List the bucket and make the jobs of new datasets. True if there were any, even if they still have to
        settle.

        Raises:
            StoreUnavailable, StoreRefused, ConfigError: the bucket cannot be listed, or the store fails as a whole.
        """
        await self._deduplicator.load()
        listing = await self._bucket.list("")
        self._listed(listing)
        before, self._etags = self._etags, {entry.key: entry.etag for entry in listing}
        found = False
        for entry in listing:
            try:
                found |= await self._look(entry, before.get(entry.key))
            except TunestreamError:
                raise  # the store as a whole
            except Exception as error:
                report("an object cannot be looked at", error)
        return found

    async def _look(self, entry: Entry, before: str | None) -> bool:
        if not datasets.is_dataset(entry.key):
            return False
        if datasets.settled(entry, before, self._bucket.now(), self._settings.settle_seconds):
            return await self._deduplicator.ingest_drop(entry, self._etags)
        return True


def report(what: str, error: Exception) -> None:
    """Log what ended one round of a loop, with what an operator needs to mend it."""
    if isinstance(error, TransientError):
        log.warning(what, extra={"reason": type(error).__name__})
    elif isinstance(error, ConfigError):
        log.error(what, extra={"reason": str(error)})
    else:
        log.error(what, extra={"reason": type(error).__name__}, exc_info=error)
