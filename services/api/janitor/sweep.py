"""The slow sweep through everything that is kept: the index of open work, the retention policy, what ingest has
handled, files whose time is over, uploads that nobody completed."""

from __future__ import annotations

import logging

from services.api import metrics
from services.api.domain.retention import DAY, Limits
from services.api.janitor.documents import Swept, read_swept, write_swept
from services.api.janitor.family import Family
from services.api.janitor.files import StoredFiles
from services.api.janitor.jobs import Jobs, Scope, Settled
from services.api.janitor.leftovers import Leftovers
from services.api.janitor.removal import Certain
from shared import ids
from shared.errors import ConfigError
from shared.settings import RetentionSettings
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

MARGIN_SECONDS = 3600.0
"""What was written shortly before the last sweep is looked at again: it may have come behind the page that was read."""
UPLOAD_SECONDS = DAY
"""An upload in parts that was begun so long ago is not going on any more."""
MOST_ABORTS = 100
"""Calls that abort uploads, per sweep."""


class Sweep:
    """A sweep every `seconds`. The ledger holds when the last one was, so a restart does not sweep again."""

    def __init__(
        self, objects: ObjectStore, retention: RetentionSettings, *, datasets: str, seconds: float, settled: Settled
    ) -> None:
        """`datasets`: the bucket in which datasets are dropped."""
        self._objects = objects
        limits = Limits(retention.attempt_days, retention.report_days)
        self._policy = ids.derive("retention", limits.attempt_days, limits.report_days, chars=12)
        self._jobs = Jobs(objects, limits, settled)
        self._files = StoredFiles(objects)
        self._leftovers = Leftovers(objects, datasets, retention.inbox_days)
        self._seconds = seconds
        self._next_at: float | None = None

    def forget(self) -> None:
        """Another process may have swept meanwhile."""
        self._next_at = None

    async def run_if_due(self, certain: Certain) -> None:
        """Sweep, unless the last sweep was short ago.

        Raises:
            StoreUnavailable, StoreRefused, ConfigError: the store does not answer, or refuses the janitor; the sweep
                begins again.
        """
        now = self._objects.now()
        if self._next_at is not None and now < self._next_at:
            return
        last = await read_swept(self._objects)
        if last is not None and last.at <= now + MARGIN_SECONDS:
            metrics.last_sweep.set(last.at)
            self._next_at = last.at + self._seconds
            if now < self._next_at:
                return
        await self._sweep(last, now, certain)
        self._next_at = now + self._seconds

    async def _sweep(self, last: Swept | None, now: float, certain: Certain) -> None:
        known = last is not None and last.policy == self._policy
        since = last.kept_until - MARGIN_SECONDS if last is not None and known else 0.0
        scope = Scope(since, now, frozenset(last.again if last and known else ()))
        family = Family(self._objects)
        await family.look()
        await self._jobs.sweep(scope, family, certain)
        if scope.refused is None:
            try:
                await self._leftovers.remove(family, certain)
                await self._files.remove(certain)
                await self._abort_uploads(now, certain)
            except ConfigError as error:
                scope.refused = error
        await certain()
        kept = last.kept_until if known and last else 0.0
        swept = Swept(at=now, kept_until=kept, policy=self._policy if known else "", again=tuple(scope.again))
        if scope.refused is None:
            swept = Swept(at=now, kept_until=now, policy=self._policy, again=tuple(dict.fromkeys(scope.left)))
        await write_swept(self._objects, swept)
        metrics.last_sweep.set(now)
        log.info("the janitor has swept", extra={"seconds": round(self._objects.now() - now, 1)})
        if scope.refused is not None:
            raise scope.refused

    async def _abort_uploads(self, now: float, certain: Certain) -> None:
        for _ in range(MOST_ABORTS):
            await certain()
            aborted = await self._objects.abort_uploads(now - UPLOAD_SECONDS)
            metrics.deleted_objects.labels("uploads").inc(aborted)
            if not aborted:
                return
