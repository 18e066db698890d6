"""The words of many texts, as hashes: the same in every process and for every file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from services.validate.splitmix import mixed
from services.validate.survey.texts.joined import Array, joined
from services.validate.survey.texts.words import ASCII_WORDS, MAX_WORDS, words_of

_SHORT = 2 * MAX_WORDS
"""An ASCII text of fewer characters has at most `MAX_WORDS` words."""
_SPACE = 32
_BLOCK = 8
_FIRST = np.array([(1 << 8 * count) - 1 for count in range(_BLOCK + 1)], np.uint64)
"""Masks of the first bytes of a block, as many as their index."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_LOW = np.uint64(0xFFFF)


@dataclass(frozen=True)
class Words:
    """`hashes` of the words of all texts, one text after another, and the number of words of each text in `counts`."""

    hashes: Array
    counts: Array

    @cached_property
    def owners(self) -> Array:
        """The number of the text of each word."""
        return np.repeat(np.arange(len(self.counts), dtype=np.uint64), self.counts)

    @cached_property
    def begins(self) -> Array:
        """The place of each text's first word."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def different(self) -> Array:
        """How many different words each text has."""
        return different(self.owners, self.hashes, len(self.counts))


class Index:
    """Finds hashes among those that are known, which are sorted. Most are told by their lowest 16 bits."""

    def __init__(self, known: Array) -> None:
        self._known = known
        self._first = np.full(1 << 16, -1, np.int32)
        self._first[known & _LOW] = np.arange(len(known))

    def find(self, hashes: Array) -> tuple[Array, Array]:
        """The places of the hashes that are known, and of each its place among the known ones."""
        at = self._first[hashes & _LOW]
        places = np.flatnonzero(at >= 0)
        at, some = at[places], hashes[places]
        unlike = np.flatnonzero(self._known[at] != some)
        if not len(unlike):
            return places, at
        # another known hash has the same bits
        at[unlike] = np.minimum(np.searchsorted(self._known, some[unlike]), len(self._known) - 1)
        right = self._known[at] == some
        return places[right], at[right]


def words_in(texts: Sequence[str]) -> Words:
    """What `words_of` gives of each text."""
    each = joined([_spaced(text) for text in texts], ASCII_WORDS)
    letters = each.data != _SPACE
    edges = np.flatnonzero(letters[1:] != letters[:-1]) + 1
    if len(letters) and letters[0]:
        edges = np.concatenate([[0], edges])
    begins, ends = edges[::2], edges[1::2]  # the last byte is a space
    counts = np.diff(np.searchsorted(begins, each.ends), prepend=0)
    return Words(_hashes(each.data, begins, ends - begins), counts)


def _hashes(data: Array, begins: Array, lengths: Array) -> Array:
    """A hash of each word, from its bytes eight by eight."""
    padded = np.concatenate([data, np.zeros(_BLOCK, np.uint8)])
    blocks = np.ndarray(len(data), "<u8", padded.data, strides=(1,))  # the eight bytes from each place on
    hashes = (blocks[begins] & _FIRST[np.minimum(lengths, _BLOCK)]) * _FACTOR + lengths.astype(np.uint64)
    hashes = mixed(hashes)
    rest, done = np.flatnonzero(lengths > _BLOCK), _BLOCK
    while len(rest):
        more = blocks[begins[rest] + done] & _FIRST[np.minimum(lengths[rest] - done, _BLOCK)]
        hashes[rest] = mixed(hashes[rest] * _FACTOR + more)
        done += _BLOCK
        rest = rest[lengths[rest] > done]
    return hashes


def different(owners: Array, hashes: Array, texts: int) -> Array:
    """How many different hashes each of so many texts has. `owners`: the text of each hash; fewer than 2**24."""
    keys = np.sort((owners << np.uint64(40)) | (hashes >> np.uint64(24)))
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return np.bincount((keys[first] >> np.uint64(40)).astype(np.int64), minlength=texts)


def _spaced(text: str) -> bytes:
    if text.isascii() and len(text) < _SHORT:
        return text.encode()
    return " ".join(words_of(text)).encode("utf-8", "surrogatepass")
