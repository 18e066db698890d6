"""Which rows are asked about, where there are too many for all."""

from __future__ import annotations

from heapq import nsmallest

from services.validate.domain.split import rank


def sample(total: int, count: int, seed: int) -> frozenset[int] | None:
    """`count` of the indexes below `total`, the same for the same seed; None: all of them."""
    if total <= count:
        return None
    return frozenset(nsmallest(count, range(total), key=lambda index: rank(seed, index.to_bytes(8, "little"))))
