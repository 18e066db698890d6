"""Which rows are asked about, where there are too many for all."""

from __future__ import annotations

import hashlib
from heapq import nsmallest


def sample(total: int, count: int, seed: int) -> frozenset[int] | None:
    """`count` of the indexes below `total`, the same for the same seed; None: all of them."""
    if total <= count:
        return None
    return frozenset(nsmallest(count, range(total), key=lambda index: _rank(seed, index)))


def _rank(seed: int, index: int) -> bytes:
    return hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
