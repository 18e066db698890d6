"""Finds queries that nearly repeat an earlier one: MinHash by `rensa` proposes, the exact similarity decides."""

from __future__ import annotations

import itertools
import re

from rensa import RMinHash, RMinHashLSH

PIECE = 5
"""Characters of a piece of text. Queries are too short for pieces of several words."""
PERMUTATIONS, BANDS = 128, 32
"""With bands of four, 98 % of the pairs with a similarity of 0.6 are proposed, and 87 % of those with 0.5."""
SEED = 1
_SPACE = re.compile(r"\s+")


class NearDuplicates:
    """The queries so far. `threshold`: the Jaccard similarity of their pieces from which two are near-duplicates."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._index = RMinHashLSH(threshold, PERMUTATIONS, BANDS)
        self._numbers = itertools.count()
        self._texts: dict[int, str] = {}
        """Their pieces would take a hundred times as much memory, and are only needed of the few that are proposed."""
        self._by_owner: dict[object, int] = {}

    def like(self, text: str) -> str | None:
        """The query that `text` resembles most, if any does that much."""
        pieces = _pieces(text)
        near = (self._texts[number] for number in self._index.query(_minhash(pieces)))
        found = max(((_jaccard(pieces, _pieces(other)), other) for other in near), default=(0.0, None))
        return found[1] if found[0] >= self._threshold else None

    def add(self, owner: object, text: str) -> None:
        """Compare later queries with `text`, too."""
        number = next(self._numbers)
        self._index.insert(number, _minhash(_pieces(text)))
        self._texts[number] = text
        self._by_owner[owner] = number

    def remove(self, owner: object) -> None:
        """Later queries may resemble the one that `owner` has added, if any."""
        number = self._by_owner.pop(owner, None)
        if number is not None:
            self._index.remove(number)
            del self._texts[number]


def _pieces(text: str) -> frozenset[str]:
    plain = _SPACE.sub(" ", text.casefold()).strip()
    return frozenset(plain[place : place + PIECE] for place in range(max(1, len(plain) - PIECE + 1)))


def _minhash(pieces: frozenset[str]) -> RMinHash:
    minhash = RMinHash(PERMUTATIONS, SEED)
    minhash.update(list(pieces))
    return minhash


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)
