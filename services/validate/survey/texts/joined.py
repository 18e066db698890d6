"""Texts as one run of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Joined(NamedTuple):
    """`data`: the bytes of all texts, with a line end behind each. `ends`: where each text ends, which is the place of
    its line end."""

    data: Array
    ends: Array

    def owners(self, places: Array) -> Array:
        """The numbers of the texts in which these places are, each once, in order."""
        return np.unique(np.searchsorted(self.ends, places))


def joined(texts: Sequence[bytes], table: bytes | None = None) -> Joined:
    """`table`: what becomes of each byte (`bytes.translate`); it must leave line ends what they are, or make them
    spaces."""
    whole = b"\n".join([*texts, b""])
    data = np.frombuffer(whole.translate(table) if table else whole, np.uint8)
    lengths = [len(text) + 1 for text in texts]
    return Joined(data, np.fromiter(accumulate(lengths), np.int64, len(texts)) - 1)


def runs(mask: Array, length: int) -> Array:
    """A mask of the places from which on `mask` holds `length` times."""
    covered = 1
    while covered < length:
        step = min(covered, length - covered)
        mask = mask[:-step] & mask[step:] if len(mask) > step else mask[:0]
        covered += step
    return mask
