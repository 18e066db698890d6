"""Which rows are asked about, where there are too many for all."""

from __future__ import annotations

import hashlib
from heapq import nsmallest


def sample(total: int, count: int, seed: int) -> frozenset[int] | None:
    """`count` of the indexes below `total`, the same for the same seed; None: all of them."""
    if total <= count:
        return None
    keyed = hashlib.blake2b(digest_size=8, key=seed.to_bytes(8, "little"))

    def rank(index: int) -> bytes:
        ranked = keyed.copy()
        ranked.update(index.to_bytes(8, "little"))
        return ranked.digest()[::-1]

    return frozenset(nsmallest(count, range(total), key=rank))
