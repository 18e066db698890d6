"""Deletes objects, certain of the lease, in an order in which no reader sees half a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from services.api import metrics
from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore

Certain = Callable[[], Awaitable[None]]
"""Returns as soon as nobody else can be the janitor."""

BATCH = 50
"""Objects that are deleted before the lease is asked about again."""
AT_ONCE = 8


async def remove(objects: ObjectStore, certain: Certain, kind: str, entries: Sequence[Entry]) -> None:
    """Delete `entries`. A folder is there when its manifest is, so all manifests go before anything else. It may end
    at any point, and be repeated.

    Raises:
        StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
    """
    manifests = [entry for entry in entries if entry.key.endswith("/manifest.json")]
    others = [entry for entry in entries if not entry.key.endswith("/manifest.json")]
    for group in (manifests, others):
        for start in range(0, len(group), BATCH):
            await certain()
            await _batch(objects, kind, group[start : start + BATCH])


async def _batch(objects: ObjectStore, kind: str, entries: Sequence[Entry]) -> None:
    free = asyncio.Semaphore(AT_ONCE)

    async def one(entry: Entry) -> None:
        async with free:
            await objects.delete(entry.key)
            metrics.deleted(kind, entry.size)

    # all of them end before this returns, so that nothing is deleted after the lease is lost
    outcomes = await asyncio.gather(*map(one, entries), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
