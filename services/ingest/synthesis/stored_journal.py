"""A journal in the ledger: small objects that are created once, with a number each.

So two owners cannot both go on: whoever comes second finds the number taken before he has sent anything.
"""

from __future__ import annotations

import asyncio

from services.ingest.domain.synthesis.places import entry_key
from services.ingest.synthesis.journal import Journal, read
from shared.errors import AlreadyExists, LeaseLost, StoreUnavailable
from shared.retry import Backoff, retry
from shared.store.objects import ObjectStore

READ_AT_A_TIME = 16
PAUSES = Backoff(0.5, 15.0)
TRIES = 12
"""About two minutes: a shorter outage of the store does not end the run."""


class StoredJournal(Journal):
    """The journal below `prefix` for the requests of `digest`."""

    def __init__(self, objects: ObjectStore, prefix: str, digest: str, contents: list[bytes]) -> None:
        lines = [line for content in contents for line in content.split(b"\n") if line]
        super().__init__(read(lines, f"{objects.bucket}/{prefix}{digest}"))
        self._objects = objects
        self._prefix = prefix
        self._digest = digest
        self._next = len(contents)

    @classmethod
    async def open(cls, objects: ObjectStore, prefix: str, digest: str) -> StoredJournal:
        """Read what is there.

        Raises:
            InputError: an object holds no entries.
            StoreUnavailable: the store is away.
        """
        limit = asyncio.Semaphore(READ_AT_A_TIME)

        async def content(key: str) -> bytes:
            async with limit:
                found = await objects.get(key)
            return found[0] if found else b""

        # objects are numbered without gaps: each is created after the one before
        keys = sorted(entry.key for entry in await objects.list(f"{prefix}{digest}/"))
        return cls(objects, prefix, digest, list(await asyncio.gather(*map(content, keys))))

    async def _keep(self, lines: bytes) -> None:
        key = entry_key(self._prefix, self._digest, self._next)

        async def create() -> None:
            try:
                await self._objects.create(key, lines)
            except AlreadyExists:
                found = await self._objects.get(key)
                if found is None or found[0] != lines:  # else the reply to an earlier try was lost
                    raise LeaseLost(key) from None

        pauses = (pause for _, pause in zip(range(TRIES), PAUSES, strict=False))
        await retry(create, on=StoreUnavailable, pauses=pauses)
        self._next += 1
