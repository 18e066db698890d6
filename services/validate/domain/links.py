"""Which rows must stay on one side of the split: those that hold the same answer to the same prompt."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import NamedTuple

KEEP = 2**64 - 1
"""The rank of rows that are always trained on."""


class Turn(NamedTuple):
    """A turn of the assistant after everything that was said before it. `digest`: 64 bits of both; two turns that share
    it by accident only make one group of two. `trained`: the row teaches this turn. `asked`: a question comes before
    it."""

    digest: int
    trained: bool
    asked: bool = True


class Links:
    """Joins rows into groups. A row that trains a turn is in one group with every row that holds the same turn in the
    same context, whether it trains it or only reads it. So a row that is the beginning of another is in its group, too;
    rows that only read the same turn are not.

    Many conversations begin with the same greeting, and must not all be one group. So a turn that nobody asked for
    joins only rows that teach nothing else, and where other rows go on from it, they are always trained on.

    Memory: about 120 bytes for each different turn that is trained, 16 for each that is only read, 8 for each row.
    """

    def __init__(self) -> None:
        self._parents = array("L")
        self._first: dict[int, int] = {}
        self._openings: dict[int, int] = {}
        self._read_turns = array("Q")
        self._read_by = array("L")

    def add(self, turns: Sequence[Turn]) -> None:
        """Add the next row."""
        row = len(self._parents)
        self._parents.append(row)
        opens = not any(turn.trained and turn.asked for turn in turns)
        for turn in turns:
            if turn.trained and turn.asked:
                self._join(self._first.setdefault(turn.digest, row), row)
            elif turn.trained and opens:
                self._join(self._openings.setdefault(turn.digest, row), row)
            else:
                # a later row may train this turn
                self._read_turns.append(turn.digest)
                self._read_by.append(row)

    def ranks(self, ranks: Sequence[int]) -> array[int]:
        """The rank of every row's group, from the ranks of the rows. It does not depend on the order of the rows.

        A row that is alone keeps its own rank. A group has a rank of its own: the lowest of its members would put
        large groups first. The rank of a group that is always trained on is `KEEP`.
        """
        openings = set()
        for digest, row in zip(self._read_turns, self._read_by, strict=True):
            if (first := self._first.get(digest)) is not None:
                self._join(first, row)
            if (opening := self._openings.get(digest)) is not None:
                openings.add(opening)
        kept = {self._root(row) for row in openings}
        lowest = array("Q", ranks)
        for row, rank in enumerate(ranks):
            root = self._root(row)
            lowest[root] = min(lowest[root], rank)
        grouped = bytearray(len(ranks))
        for row in range(len(ranks)):
            if (root := self._root(row)) != row:
                grouped[root] = 1
        for row in range(len(ranks)):
            if self._parents[row] == row:
                lowest[row] = KEEP if row in kept else _again(lowest[row]) if grouped[row] else lowest[row]
        return array("Q", (lowest[self._root(row)] for row in range(len(ranks))))

    def _root(self, row: int) -> int:
        parents = self._parents
        while parents[row] != row:
            parents[row] = row = parents[parents[row]]
        return row

    def _join(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        if one != other:
            self._parents[max(one, other)] = min(one, other)


def _again(rank: int) -> int:
    return int.from_bytes(hashlib.blake2b(rank.to_bytes(8, "little"), digest_size=8).digest(), "little")
