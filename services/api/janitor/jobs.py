"""Walks through `jobs/` page by page, one job at a time: rebuilds the index of open work, and carries out the retention
policy. Most jobs ended long ago; of those the listing tells enough, and nothing is read."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError

from services.api import metrics
from services.api.domain import open_work
from services.api.domain.retention import Limits, decide
from services.api.domain.walk import JobListing
from services.api.janitor.family import Family, UnreadableResult, read_results
from services.api.janitor.folders import walk_folders
from services.api.janitor.removal import Certain, remove
from shared.errors import AlreadyExists, ConfigError, StoreRefused, TransientError
from shared.events import Deployment, StageName
from shared.ids import is_job_id
from shared.stages.ledger import JOBS, PENDING
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

Settled = Callable[[str], Awaitable[bool]]
"""Whether the projection knows from the ledger that a job has ended. It saves a read of every job that has failed."""


@dataclass
class Scope:
    """Which jobs the retention policy looks at. `since`, `now`: what a last sweep and this one stand for, in seconds
    since the epoch."""

    since: float
    now: float
    again: frozenset[str]
    left: list[str] = field(default_factory=list)
    """Jobs that the next sweep must look at again."""
    refused: ConfigError | None = None
    """Why nothing could be deleted. The rest of the sweep goes on."""

    def wants(self, listing: JobListing, limits: Limits) -> bool:
        changed = listing.newest > self.since or listing.job_id in self.again
        return bool(listing.written) and (changed or limits.due(listing.decided_at, self.since, self.now))


class Jobs:
    """One walk through all jobs."""

    def __init__(self, objects: ObjectStore, limits: Limits, settled: Settled) -> None:
        self._objects = objects
        self._limits = limits
        self._settled = settled

    async def sweep(self, scope: Scope, family: Family, certain: Certain) -> None:
        """Look at every job. What is wrong with one does not stop the others.

        Raises:
            StoreUnavailable, ConfigError: the store does not answer, or refuses the janitor.
        """
        listed = await self._listed()
        named = await self._named() if self._limits.report_days is not None else None
        async for job_id, entries in walk_folders(self._objects, JOBS):
            listing = JobListing(job_id, entries)
            if not is_job_id(listing.job_id):
                continue
            try:
                await self._index(listing, listed)
                if scope.refused is None and scope.wants(listing, self._limits):
                    await self._retain(listing, scope, family, named, certain)
            except (UnreadableResult, StoreRefused) as error:
                scope.left.append(listing.job_id)
                log.warning(
                    "the janitor cannot read a job", extra={"job_id": listing.job_id, "reason": type(error).__name__}
                )
            except (TransientError, ConfigError):
                raise
            except Exception:
                scope.left.append(listing.job_id)
                log.exception("the janitor cannot look at a job", extra={"job_id": listing.job_id})

    # --- the index of open work -----------------------------------------------------------------------------------

    async def _listed(self) -> set[tuple[str, str]]:
        entries = [open_work.entry_of(entry.key) async for entry in self._objects.walk(PENDING)]
        return {entry for entry in entries if entry}

    async def _index(self, listing: JobListing, listed: set[tuple[str, str]]) -> None:
        last: StageName | None = open_work.undecided(listing, listed)
        if last is not None and await self._settled(listing.job_id):
            last = None
        result = (await read_results(self._objects, listing.job_id, (last,)))[last] if last is not None else None
        for key in open_work.missing(listing, listed, result):
            with contextlib.suppress(AlreadyExists):
                await self._objects.create(key, b"{}")
            metrics.index_entries.inc()
            log.warning("the index of open work lacked an entry", extra={"job_id": listing.job_id})

    # --- the retention policy -------------------------------------------------------------------------------------

    async def _retain(
        self, listing: JobListing, scope: Scope, family: Family, named: set[str] | None, certain: Certain
    ) -> None:
        results = await read_results(self._objects, listing.job_id)
        if not results.keys() >= listing.results.keys():
            return  # changed by somebody else since the listing
        is_named = named is None or listing.job_id in named
        choose = partial(decide, listing, results, named=is_named, now=scope.now, limits=self._limits)
        # without the retries first: most jobs have nothing to delete, whatever their retries refer to
        if (first := choose(heirs=())).empty:
            scope.left += [listing.job_id] if first.again else []
            return
        await family.look()
        decision = choose(heirs=await family.heirs(listing.job_id))
        scope.left += [listing.job_id] if decision.again else []
        try:
            for kind, entries in decision.chosen.items():
                await remove(self._objects, certain, kind, entries)
        except ConfigError as error:
            scope.refused = error

    async def _named(self) -> set[str] | None:
        """The jobs whose models an alias names, now or in its history. None: nobody knows of all."""
        named: set[str] = set()
        for entry in await self._objects.list("deployments/"):
            found = await self._objects.get(entry.key)
            if found is None:
                continue
            try:
                deployment = Deployment.model_validate_json(found[0])
            except ValidationError:
                log.error("a deployment cannot be read, so no report is deleted")
                return None
            versions = (deployment.current, deployment.previous, *deployment.history)
            named |= {version.job_id for version in versions if version is not None}
        return named
