"""Publishes the events of new jobs, whether or not the bus is there, and whether or not this process lives on.

While the bus is fine an event is published at once. Otherwise it waits in the outbox, and the marker of its dataset in
`ingest/seen/` says so until it is published. A marker is all that is needed: the result in the ledger holds the event.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket

from services.ingest import metrics
from shared import ids
from shared.errors import ConfigError, StoreRefused, TransientError
from shared.events import StageResult
from shared.retry import Backoff
from shared.stages import outbox
from shared.stages.ledger import Entry, published_key
from shared.stages.outbox import Outbox
from shared.stages.publisher import Publisher
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

PUBLISHED = b"{}"
"""The marker of a dataset whose job needs nothing more. Any other marker is longer, so a listing tells them apart."""
CHECK_PAUSES = Backoff(2.0, 300.0)
"""Between two looks at the markers of events that were not published at once."""


class Announcer:
    """Sends the events of ingest's results, at least once each."""

    def __init__(self, objects: ObjectStore, bus: Publisher) -> None:
        self.owner = f"{socket.gethostname()}/{os.getpid()}"
        self._objects = objects
        self._bus = bus
        self._outbox = Outbox(objects, bus, self.owner)
        self._unpublished: dict[str, str | None] = {}
        """The id of the job, by the key of its marker. None: the marker of an earlier process, which holds it."""
        metrics.unpublished.set_function(lambda: len(self._unpublished))

    async def announce(self, result: StageResult) -> bytes:
        """Publish the event of a committed result, or see to it that it is published. Returns the marker to write."""
        if not self._outbox.waiting:  # otherwise the bus is away: not everybody has to find that out for himself
            try:
                await outbox.publish(self._objects, self._bus, result, self.owner)
                return PUBLISHED
            except (TransientError, ConfigError, StoreRefused) as error:
                log.warning("an event is published later", extra={"reason": type(error).__name__})
        self._outbox.result(result)
        return ids.canonical({"unpublished": result.job_id})

    def marked(self, key: str, marker: bytes, job_id: str) -> None:
        """The marker is written. From now on a restart finds what is not published."""
        if marker != PUBLISHED:
            self._unpublished[key] = job_id

    def load(self, entry: Entry) -> None:
        """Take over what an earlier process did not publish, if the marker `entry` says so."""
        if entry.size > len(PUBLISHED):
            self._unpublished.setdefault(entry.key, None)

    async def run(self) -> None:
        """Publish until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._outbox.run())
            group.create_task(self._check())

    async def _check(self) -> None:
        rounds = 0
        while True:
            rounds += 1
            await asyncio.sleep(CHECK_PAUSES.jittered(rounds))
            if not self._unpublished:
                rounds = 0
            elif not self._outbox.waiting:
                # the outbox has sent everything, or has given something up for now
                await self.settle()

    async def settle(self) -> None:
        """Look at every marker of an event that was not published: either it is by now, or it is sent again."""
        for key, known in list(self._unpublished.items()):
            try:
                job_id = known or await self._job_of(key)
                if await self._objects.exists(published_key(job_id, "ingest")):
                    await self._objects.put(key, PUBLISHED)
                    del self._unpublished[key]
                elif result := await outbox.read(self._objects, job_id, "ingest"):
                    self._outbox.result(result)
            except TransientError:
                return  # the store is away; nothing else would be found out now
            except Exception as error:  # whatever is wrong with one of them, the others are published
                log.warning("an event is not published yet", extra={"reason": type(error).__name__})

    async def _job_of(self, key: str) -> str:
        found = await self._objects.get(key)
        assert found is not None, "markers are never deleted"
        job_id = self._unpublished[key] = str(json.loads(found[0])["unpublished"])
        return job_id
