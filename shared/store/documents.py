"""Small documents below a prefix that are looked at again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from shared.stages.ledger import Ledger

D = TypeVar("D")


class Documents(Generic[D]):
    """The documents below `prefix`. A look takes one listing, and one read for each that has changed since."""

    def __init__(self, ledger: Ledger, prefix: str, parse: Callable[[str, bytes], D | None]) -> None:
        """`parse` makes a document of its key and its bytes; None: it cannot be read, which `parse` logs."""
        self._ledger = ledger
        self._prefix = prefix
        self._parse = parse
        self._read: dict[str, tuple[str, D | None]] = {}
        """By key, with their ETags."""

    async def look(self) -> Mapping[str, D | None]:
        """All documents as the store has them now, in the order of their keys. Raises like the ledger."""
        read: dict[str, tuple[str, D | None]] = {}
        for entry in sorted(await self._ledger.list(self._prefix), key=lambda entry: entry.key):
            known = self._read.get(entry.key)
            if known is not None and known[0] == entry.etag:
                read[entry.key] = known
            elif (found := await self._ledger.get(entry.key)) is not None:
                read[entry.key] = (found[1], self._parse(entry.key, found[0]))
        self._read = read
        return {key: document for key, (_, document) in read.items()}
