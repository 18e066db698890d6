"""Long texts: a model reads so many tokens and no more. A longer text is embedded in pieces, and the mean of their
vectors, weighted by tokens, is its vector."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from operator import mul
from typing import NamedTuple

from shared.embeddings.embedder import Vector


class Piece(NamedTuple):
    """A part of a text, and how many tokens it has."""

    text: str
    tokens: int


def pieces(text: str, offsets: Sequence[tuple[int, int]], room: int) -> list[Piece]:
    """The text in pieces of nearly the same length, each of at most `room` tokens; cut between words where there are
    any. `offsets`: where each of its tokens begins and ends in the text."""
    count = -(-len(offsets) // room) or 1
    found, begin = list[Piece](), 0
    while len(offsets) - begin > room:
        left = max(1, count - len(found))
        end = min(begin + room, begin + -(-(len(offsets) - begin) // left))
        cut = end
        while cut > (begin + end) // 2 and not text[offsets[cut][0] - 1].isspace():
            cut -= 1
        end = cut if cut > (begin + end) // 2 else end
        found.append(Piece(text[offsets[begin][0] : offsets[end][0]], end - begin))
        begin = end
    start = offsets[begin][0] if found else 0
    return [*found, Piece(text[start:], max(1, len(offsets) - begin))]


def mean(vectors: Sequence[Sequence[float]], weights: Sequence[int]) -> Vector:
    """The weighted mean, with a length of 1."""
    sums = [sum(map(mul, column, weights)) for column in zip(*vectors, strict=True)]
    length = math.hypot(*sums) or 1.0
    return array("f", [value / length for value in sums])
