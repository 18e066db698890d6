"""What is kept of things that were handled: by ingest announcements, markers, requests for jobs and solved problems;
deliveries of webhooks.

Nothing of ingest's decides which job a dataset makes, because the job's id is derived from the dataset and its
settings: a marker only saves reading the dataset again. So a marker stays while its object is in the bucket.
"""

from __future__ import annotations

import posixpath
from collections.abc import AsyncIterator

from pydantic import ValidationError

from services.api.domain.repeats import REPEATED_SECONDS
from services.api.domain.retention import DAY
from services.api.domain.webhooks import DELIVERIES, FORGET_SECONDS
from services.api.janitor.family import Family, UnreadableResult
from services.api.janitor.removal import Certain, remove
from shared.drops import DONE, INBOX, SEEN, SIDECAR_ENDINGS, drop_name, place_of, quarantined_id, version_of
from shared.events import Quarantined
from shared.stages.ledger import ASKED, QUARANTINE, Entry, published_key
from shared.store.objects import ObjectStore

MOST_MARKERS = 20_000
"""That one sweep looks at; the others wait for the next one."""


class Leftovers:
    """Deletes what is older than `days`. It needs a walk through the datasets only if a marker is."""

    def __init__(self, objects: ObjectStore, datasets_bucket: str, days: float) -> None:
        self._objects = objects
        self._datasets = objects.at(datasets_bucket)
        self._days = days

    async def remove(self, family: Family, certain: Certain) -> None:
        """Delete all that nobody needs.

        Raises:
            StoreUnavailable, ConfigError: the store does not answer, or refuses the janitor.
        """
        before = self._objects.now() - self._days * DAY
        # the markers first: that of an announcement must not go before the announcement
        if markers := await self._markers(before):
            present = await self._present()
            await remove(self._objects, certain, "markers", [each for each in markers if _name(each) not in present])
        await remove(self._objects, certain, "inbox", [each async for each in self._handled(before)])
        await remove(self._objects, certain, "quarantine", [each async for each in self._solved(before)])
        await remove(self._objects, certain, "retries", [each async for each in self._retried(family, before)])
        await remove(self._objects, certain, "asked", [each async for each in self._asked(before)])
        told = self._objects.now() - FORGET_SECONDS
        await remove(self._objects, certain, "webhooks", [each async for each in self._old(DELIVERIES, told)])

    async def _old(self, prefix: str, before: float) -> AsyncIterator[Entry]:
        async for entry in self._objects.walk(prefix):
            if entry.modified < before:
                yield entry

    async def _markers(self, before: float) -> list[Entry]:
        found: list[Entry] = []
        async for entry in self._old(SEEN, before):
            if entry.size == len(DONE):
                found.append(entry)
                if len(found) == MOST_MARKERS:
                    break
        return found

    async def _present(self) -> set[str]:
        """The names of the markers of everything that is in the bucket of datasets and in the inbox."""
        sidecars = {
            entry.key: entry.etag async for entry in self._datasets.walk("") if entry.key.endswith(SIDECAR_ENDINGS)
        }
        names = set[str]()
        async for entry in self._datasets.walk(""):
            name, origin = (
                drop_name(self._datasets.bucket, entry, sidecars),
                place_of(self._datasets.bucket, entry.key),
            )
            names |= {name, quarantined_id("drop", origin, name, version_of(entry))}
        async for entry in self._old(INBOX, float("inf")):
            names |= {_name(entry), _refused_name(entry)}
        return names

    async def _handled(self, before: float) -> AsyncIterator[Entry]:
        """Announcements whose marker says that nothing is left to do."""
        async for entry in self._old(INBOX, before):
            for name in (_name(entry), _refused_name(entry)):
                marker = await self._objects.stat(SEEN + name)
                if marker is not None and marker.size == len(DONE) and marker.modified < before:
                    yield entry
                    break

    async def _solved(self, before: float) -> AsyncIterator[Entry]:
        async for entry in self._old(QUARANTINE, before):
            found = await self._objects.get(entry.key)
            try:
                about = Quarantined.model_validate_json(found[0]) if found else None
            except ValidationError:
                continue  # of another version: people see it in the list
            if about is not None and about.solved_at is not None and about.solved_at < before:
                yield entry

    async def _retried(self, family: Family, before: float) -> AsyncIterator[Entry]:
        for entry in family.requests:
            if entry.modified < before:
                try:
                    if await family.done_with(entry):
                        yield entry
                except UnreadableResult:
                    continue

    async def _asked(self, before: float) -> AsyncIterator[Entry]:
        """Requests for jobs that were made, and that no repeated request can mean any more."""
        async for entry in self._old(ASKED, min(before, self._objects.now() - REPEATED_SECONDS)):
            if await self._objects.exists(published_key(_name(entry).removesuffix(".json"), "ingest")):
                yield entry


def _name(entry: Entry) -> str:
    return posixpath.basename(entry.key)


def _refused_name(entry: Entry) -> str:
    """The name of the marker of an announcement that cannot become a job."""
    return quarantined_id("event", _name(entry), _name(entry))
