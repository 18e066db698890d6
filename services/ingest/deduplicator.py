"""Makes one job of each dataset, whichever part finds it first: sweep, bucket notification, inbox or another replica.

Markers in the ledger remember what was handled, so that a restart does not read every dataset again.
"""

from __future__ import annotations

import contextlib
import logging
import posixpath
import time
from collections.abc import Awaitable, Callable, Mapping

from pydantic import ValidationError

from services.ingest import metrics
from services.ingest.announcer import PUBLISHED, Announcer
from services.ingest.domain.failures import UNREADABLE, verdict
from services.ingest.intake import Intake, Made
from services.ingest.quarantine import Item, Quarantine
from shared.drops import SEEN, drop_name, place_of, version_of
from shared.errors import AlreadyExists, ConfigError, InputError, StoreRefused, TransientError
from shared.events import DatasetPointer, Origin
from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore
from shared.tasks import Patience

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0
"""A dataset that takes longer, because it is large or has to be converted, is handled beside the others."""
RELOAD_SECONDS = 600.0
"""Between two listings of all markers: they show what another replica left unpublished when it ended for good."""


class Gone(Exception):
    """What was to be handled is not there any more: the janitor has deleted it, because it was handled long ago."""


class Deduplicator:
    """Remembers which drops and events were handled, and which are being handled. This saves work; correctness does not
    need it. The same dataset always makes the same job, because its id is derived from the dataset and the settings,
    and its manifest is a create-once object.
    """

    def __init__(
        self,
        objects: ObjectStore,
        intake: Intake,
        announcer: Announcer,
        datasets_bucket: str,
        timer: Callable[[], float] = time.monotonic,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._patience = Patience(patience, _failed)
        self._objects = objects
        self._intake = intake
        self._announcer = announcer
        self._bucket = datasets_bucket
        self._quarantine = Quarantine(objects, timer)
        self._timer = timer
        self._loaded_at: float | None = None
        self._seen: set[str] = set()
        self._new: set[str] = set()
        """Those of `_seen` that were added since the last listing began."""
        self._underway: set[str] = set()

    @property
    def restless(self) -> bool:
        """Whether something is to be tried again soon."""
        return self._quarantine.restless

    async def load(self) -> None:
        """Read all markers in one listing, instead of one request for each: at the start, and every few minutes."""
        if self._loaded_at is not None and self._timer() - self._loaded_at < RELOAD_SECONDS:
            return
        self._new.clear()
        entries = await self._objects.list(SEEN)
        await self._quarantine.load()
        for entry in entries:
            self._announcer.load(entry)
        # what the janitor has deleted is forgotten; what was marked while the listing was under way is not
        self._seen = {posixpath.basename(entry.key) for entry in entries} | self._new
        self._loaded_at = self._timer()

    async def ingest_drop(self, entry: Entry, etags: Mapping[str, str]) -> bool:
        """Make the job of a dropped object. `etags`: see `shared.drops.drop_name`. Otherwise as `handle_new`."""
        place = place_of(self._bucket, entry.key)
        name = drop_name(self._bucket, entry, etags)
        item = Item("drop", name, place, origin=place, version=version_of(entry))

        async def make() -> Made:
            try:
                pointer = DatasetPointer(bucket=self._bucket, key=entry.key)
            except ValidationError as error:
                raise InputError(
                    "invalid_key", f"its key cannot be used: {error.errors(include_url=False)[0]['msg']}", "key"
                ) from None
            origin = Origin(kind="drop", source=f"s3://{self._bucket}")
            try:
                made = await self._intake.create_job(pointer, origin=origin)
            except InputError as error:
                if error.code == UNREADABLE:
                    # An archive gives out at least the size. A policy does not; when an operator mends it, the object
                    # does not change, so a ConfigError has to say that it is tried again
                    await self._objects.at(self._bucket).stat(entry.key)
                raise
            metrics.seconds.observe(max(0.0, self._objects.now() - entry.modified))
            return made

        return await self.handle_new(item, make)

    async def handle_new(self, item: Item, make: Callable[[], Awaitable[Made]]) -> bool:
        """Call `make` and return True; return False if the item was handled before, is being handled, or has to wait.

        Whatever is wrong with the item, only the item is put off or put into quarantine. One that takes long is handled
        on while the caller goes on with the next.

        Raises:
            StoreUnavailable, StoreRefused, ConfigError: the store fails as a whole, so the next item would fail, too.
        """
        name = item.name
        if {name, item.id} & self._seen or name in self._underway or self._quarantine.waits(item):
            return False
        self._underway.add(name)
        return await self._patience.wait(self._guarded(item, make), otherwise=True)

    async def _guarded(self, item: Item, make: Callable[[], Awaitable[Made]]) -> bool:
        try:
            return await self._handle(item, make)
        except Gone:
            return False
        except Exception as error:
            if isinstance(error, TransientError | ConfigError | StoreRefused):
                await self._objects.check()
            elif not isinstance(error, InputError):
                log.exception("a dataset cannot be handled")
            await self._quarantine.later(item, error)
            return True
        finally:
            self._underway.discard(item.name)

    async def _handle(self, item: Item, make: Callable[[], Awaitable[Made]]) -> bool:
        if await self._objects.exists(SEEN + item.name):
            self._remember(item.name)  # another replica handled it
            return False
        try:
            made = await make()
        except InputError as error:
            metrics.taken.labels(item.kind, "refused").inc()
            if not verdict(item.kind, error).final:
                raise
            await self._quarantine.final(item, error)
            await self._mark(item.id, PUBLISHED)
            return True
        metrics.taken.labels(item.kind, "job").inc()
        log.info("job made", extra={"job_id": made.job.job_id})
        await self._mark(item.name, made.marker)
        self._announcer.marked(SEEN + item.name, made.marker, made.job.job_id)
        await self._quarantine.solved(item)
        return True

    async def _mark(self, name: str, marker: bytes) -> None:
        with contextlib.suppress(AlreadyExists):
            await self._objects.create(SEEN + name, marker)
        self._remember(name)

    def _remember(self, name: str) -> None:
        self._seen.add(name)
        self._new.add(name)


def _failed(error: Exception) -> None:
    """The store as a whole fails, which the caller's next step finds, too."""
    log.warning("a dataset that takes long is left to the next sweep", extra={"reason": type(error).__name__})
