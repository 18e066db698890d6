"""The line at which each digest was first seen: a hash table of 23 to 31 bytes an entry, where a dict needs 140."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FULL, _GROWTH = 0.7, 1.35
_SMALL, _LOOSE = 2**19, 0.25
"""A table of so few homes is kept sparse, since that is quicker, and doubles: its memory does not count."""
_SPARE = 64  # slots behind the last home; a table that fills them grows
_FILLED = 1 << 63  # set in every key, since zero is an empty slot
_HALF = 0xFFFFFFFF
_CHUNK = 2**18  # slots that are moved at once
_AHEAD = 2**15  # there is always room for so many more, the rows of a block
_FEW = 48  # so many digests are quicker one by one
_READ = struct.Struct("<QI").unpack_from
_DIGEST = np.dtype([("key", "<u8"), ("more", "<u4"), ("rest", "<u4")])

Array = NDArray[Any]


class Digests:
    """Remembers 95 bits of each digest of 16 bytes, and the line that it came with. That two of a billion share these
    bits happens in one of 10**11 files.

    Linear probing. Homes ascend with the keys, so a table is very nearly sorted, and growing is one pass over it.
    `expected`: for so many digests it has room from the start, so that no smaller table is ever beside it.
    """

    def __init__(self, expected: int = 0) -> None:
        self._free = self._homes = 0
        self._keys, self._more, self._lines = array("Q"), array("I"), array("I")
        sparse, full = (int((expected + _AHEAD) / share) for share in (_LOOSE, _FULL))
        self._resize(sparse if sparse <= _SMALL else max(full, _SMALL + 1))

    def first(self, digest: bytes, line: int) -> int:
        """The line with which this digest came first; it is `line` if the digest is new."""
        key: int
        key, more = _READ(digest)
        key |= _FILLED
        slot = (key >> 31 & _HALF) * self._homes >> 32
        while known := self._keys[slot]:
            if known == key and self._more[slot] == more:
                return self._lines[slot]
            slot += 1
        self._keys[slot], self._more[slot], self._lines[slot] = key, more, line
        self._free -= 1
        if self._free <= 0 or slot >= len(self._keys) - 2:
            self._grow()
        return line

    def __contains__(self, digest: bytes) -> bool:
        key, more = _READ(digest)
        key |= _FILLED
        slot = (key >> 31 & _HALF) * self._homes >> 32
        while known := self._keys[slot]:
            if known == key and self._more[slot] == more:
                return True
            slot += 1
        return False

    def first_of_many(self, digests: bytes, lines: Sequence[int]) -> list[tuple[int, int]]:
        """The same for many digests, one after another, whose lines ascend: `(place, first line)` of those that are not
        new."""
        while self._free <= len(lines):
            self._grow()
        read = np.frombuffer(digests, _DIGEST)
        key, more, line = read["key"] | np.uint64(_FILLED), read["more"], np.array(lines, np.uint32)
        place, slot = np.arange(len(line)), self._homes_of(key)
        keys, mores, firsts = self._arrays()
        found: list[tuple[int, int]] = []
        while len(place) > _FEW:
            if int(slot.max()) >= len(keys) - 2:  # the slots behind the last home are used up
                self._grow()
                slot = self._homes_of(key)
                keys, mores, firsts = self._arrays()
            empty = np.flatnonzero(keys[slot] == 0)
            if len(empty):
                # of two that want one slot the first gets it: what is assigned last counts
                turned = empty[::-1]
                wanted = slot[turned]
                keys[wanted], mores[wanted], firsts[wanted] = key[turned], more[turned], line[turned]
            own = firsts[slot] == line
            self._free -= int(np.count_nonzero(own))
            done = own | ((keys[slot] == key) & (mores[slot] == more))
            repeated = np.flatnonzero(done & ~own)
            if len(repeated):
                found += zip(place[repeated].tolist(), firsts[slot[repeated]].tolist(), strict=True)
            left = np.flatnonzero(~done)
            key, more, line, place, slot = key[left], more[left], line[left], place[left], slot[left] + 1
        for one in place.tolist():
            if (first := self.first(digests[one * 16 : one * 16 + 16], lines[one])) != lines[one]:
                found.append((one, first))
        return sorted(found)

    def _homes_of(self, key: Array) -> Array:
        high = (key >> np.uint64(31)) & np.uint64(_HALF)
        return ((high * np.uint64(self._homes)) >> np.uint64(32)).astype(np.int64)

    def _arrays(self) -> tuple[Array, Array, Array]:
        return (
            np.frombuffer(self._keys, np.uint64),
            np.frombuffer(self._more, np.uint32),
            np.frombuffer(self._lines, np.uint32),
        )

    def _resize(self, homes: int) -> None:
        slots = homes + _SPARE
        self._homes = homes
        self._free += int(homes * (_LOOSE if homes <= _SMALL else _FULL))
        self._keys = array("Q", bytes(8)) * slots
        self._more, self._lines = array("I", bytes(4)) * slots, array("I", bytes(4)) * slots

    def _grow(self) -> None:
        """Move all to a larger table, a part after another, so that little more than the new table is needed."""
        old = self._arrays()
        homes = self._homes
        while True:
            homes = int(homes * (_GROWTH if homes > _SMALL else 2))
            self._free = -int(np.count_nonzero(old[0]))
            self._resize(homes)
            if self._moved(old):
                return

    def _moved(self, old: tuple[Array, Array, Array]) -> bool:
        new = self._arrays()
        begin = free = 0
        while begin < len(old[0]):
            end = begin + _CHUNK
            while end < len(old[0]) and old[0][end]:
                end += 1  # what is between two empty slots belongs together
            filled = begin + np.flatnonzero(old[0][begin:end])
            begin = end
            if not len(filled):
                continue
            filled = filled[np.argsort(old[0][filled], kind="stable")]
            count = np.arange(len(filled))
            slots = np.maximum.accumulate(np.maximum(self._homes_of(old[0][filled]) - count, free)) + count
            free = int(slots[-1]) + 1
            if free > len(new[0]) - 2:
                return False
            for one, other in zip(new, old, strict=True):
                one[slots] = other[filled]
        return True
