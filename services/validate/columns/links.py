"""Which rows must stay on one side of the split: those that hold the same answer to the same prompt."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.validate.domain.content import Turn

KEEP = 2**64 - 1
"""The rank of rows that are always trained on."""

_CHUNK = 2**20  # turns that are looked up at once


class _Turns:
    """Turns and the rows that hold them: 12 bytes each."""

    def __init__(self) -> None:
        self.digests, self.rows = array("Q"), array("I")

    def add(self, digest: int, row: int) -> None:
        self.digests.append(digest)
        self.rows.append(row)

    def add_many(self, digests: NDArray[np.uint64], row: int) -> None:
        """The same for one turn of each of the rows from `row` on."""
        self.digests.frombytes(digests.tobytes())
        self.rows.extend(range(row, row + len(digests)))

    def sorted(self) -> NDArray[np.uint64]:
        return np.sort(np.frombuffer(self.digests, np.uint64)) if self.digests else np.empty(0, np.uint64)

    def among(self, wanted: NDArray[np.uint64]) -> Iterator[tuple[int, int]]:
        """`(place in wanted, row)` of every turn whose digest is in the sorted array `wanted`, in the order of rows."""
        if not self.digests or not len(wanted):
            return
        digests = np.frombuffer(self.digests, np.uint64)
        for begin in range(0, len(digests), _CHUNK):
            some = digests[begin : begin + _CHUNK]
            places = np.searchsorted(wanted, some)
            places[places == len(wanted)] = 0
            found = np.flatnonzero(wanted[places] == some)
            for place, turn in zip(places[found].tolist(), found.tolist(), strict=True):
                yield place, self.rows[begin + turn]


class Links:
    """Joins rows into groups. A row that trains a turn is in one group with every row that holds the same turn in the
    same context, whether it trains it or only reads it. So a row that is the beginning of another is in its group, too;
    rows that only read the same turn are not.

    Many conversations begin with the same greeting, and must not all be one group. So a turn that nobody asked for
    joins only rows that teach nothing else, and where other rows go on from it, they are always trained on.

    Memory: 12 bytes for each turn; at the end 8 more for each, and 12 for each row.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._trained, self._openings, self._read = _Turns(), _Turns(), _Turns()

    def add(self, turns: Sequence[Turn]) -> None:
        """Add the next row."""
        row = self._rows
        self._rows += 1
        opens = not any(turn.trained and turn.asked for turn in turns)
        for turn in turns:
            if turn.trained and turn.asked:
                self._trained.add(turn.digest, row)
            elif turn.trained and opens:
                self._openings.add(turn.digest, row)
            else:
                # a later row may train this turn
                self._read.add(turn.digest, row)

    def add_answers(self, groups: bytes, turns: Mapping[int, Sequence[Turn]]) -> None:
        """Add the next rows, of which each trains one turn that somebody asked for, but for those with `turns` (by
        their place). `groups`: 16 bytes a row, of which the first 8 are the digest of the turn."""
        digests = np.frombuffer(groups, np.uint64)[::2]
        if not turns:
            self._trained.add_many(digests, self._rows)
            self._rows += len(digests)
            return
        begin = 0
        for place in (*turns, len(digests)):
            self._trained.add_many(digests[begin:place], self._rows)
            self._rows += place - begin
            if place < len(digests):
                self.add(turns[place])
            begin = place + 1

    def ranks(self, found: array[int]) -> array[int]:
        """The rank of every row's group, from the ranks of the rows, which are `found` and become the result. It does
        not depend on the order of the rows.

        A row that is alone keeps its own rank. A group has a rank of its own: the lowest of its members would put
        large groups first. The rank of a group that is always trained on is `KEEP`.
        """
        parents = array("I")
        parents.frombytes(np.arange(self._rows, dtype=np.uint32).tobytes())
        self._join_all(parents, self._trained, readers=True)
        kept_openings = self._join_all(parents, self._openings, readers=False)
        kept = {_root(parents, row) for row in kept_openings}
        lowest = np.frombuffer(found, np.uint64) if found else np.empty(0, np.uint64)
        roots = np.frombuffer(parents, np.uint32) if parents else np.empty(0, np.uint32)
        while len(roots) and np.any(roots[roots] != roots):
            roots = roots[roots]
        members = np.flatnonzero(roots != np.arange(len(roots), dtype=np.uint32))
        np.minimum.at(lowest, roots[members], lowest[members])
        for root in np.unique(roots[members]).tolist():
            found[root] = _again(found[root])
        for root in kept:
            found[root] = KEEP
        lowest[members] = lowest[roots[members]]
        return found

    def _join_all(self, parents: array[int], turns: _Turns, *, readers: bool) -> set[int]:
        """Join the rows that train the same turn, and those that read it. Without `readers` the rows that read are not
        joined; the first row of each turn that is read is returned."""
        known = turns.sorted()
        shared = [np.unique(known[1:][known[1:] == known[:-1]])]
        read = np.frombuffer(self._read.digests, np.uint64) if self._read.digests else np.empty(0, np.uint64)
        for begin in range(0, len(read) if len(known) else 0, _CHUNK):
            some = np.unique(read[begin : begin + _CHUNK])
            places = np.minimum(np.searchsorted(known, some), len(known) - 1)
            shared.append(some[known[places] == some])
        wanted = np.unique(np.concatenate(shared))
        del known, shared
        first: dict[int, int] = {}
        for place, row in turns.among(wanted):
            _join(parents, first.setdefault(place, row), row)
        hit = set()
        for place, row in self._read.among(wanted):
            if readers:
                _join(parents, first[place], row)
            else:
                hit.add(first[place])
        return hit


def _root(parents: array[int], row: int) -> int:
    while parents[row] != row:
        parents[row] = row = parents[parents[row]]
    return row


def _join(parents: array[int], one: int, other: int) -> None:
    one, other = _root(parents, one), _root(parents, other)
    if one != other:
        parents[max(one, other)] = min(one, other)


def _again(rank: int) -> int:
    return int.from_bytes(hashlib.blake2b(rank.to_bytes(8, "little"), digest_size=8).digest(), "little")
