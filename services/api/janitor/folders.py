"""Walks through the folders of the object store."""

from __future__ import annotations

from collections.abc import AsyncIterator

from shared.stages.ledger import Entry
from shared.store.objects import ObjectStore


async def walk_folders(objects: ObjectStore, prefix: str) -> AsyncIterator[tuple[str, list[Entry]]]:
    """The folders directly below `prefix`, one at a time: the name, and all objects in it. A page is read when the last
    one is used up."""
    name, entries = "", list[Entry]()
    async for entry in objects.walk(prefix):
        met = entry.key.removeprefix(prefix).partition("/")[0]
        if met != name:
            if entries:
                yield name, entries
            name, entries = met, []
        entries.append(entry)
    if entries:
        yield name, entries
