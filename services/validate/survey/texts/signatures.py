"""What near-duplicates have in common: words and pairs of words of a row, and their MinHash signatures.

Two rows are nearly the same if their prompts are and their answers are. So a signature has a half for each, and a band
of the locality-sensitive hash (Indyk and Motwani 1998) takes from both: rows that share only their prompt, or only
their answer, never become candidates.
"""

from __future__ import annotations

from array import array
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from services.validate.splitmix import mixed
from services.validate.survey.texts.hashed import Index, Words
from services.validate.survey.texts.joined import Array

HALF = 63
"""Hash functions for each half of a signature."""
ROWS = 3
"""Values of each half in a band. With 21 bands of 3 + 3 values, rows of a similarity of 0.8 become candidates with a
probability of 0.998, of 0.7 with 0.93, of 0.5 with 0.28."""
BANDS = HALF // ROWS
SIGNATURE = 2 * HALF
"""Bytes of a signature that are kept to confirm a candidate: the lowest of each value (b-bit MinHash, Li and König
2010)."""
FEWEST = 4
"""With fewer features of its own, a text is described by all of its features."""
SEED = 42
_AFTER = np.uint64(0xD6E8FEB86659FD93)  # so that a pair and the same words the other way round differ


class Features(NamedTuple):
    """Hashes of the features of texts, one text after another, and how many each text has. What a text has twice is
    there twice: a MinHash is the same with it."""

    hashes: Array
    counts: Array


def features(words: Words) -> Features:
    """The words and the pairs of neighbours."""
    found = np.empty((len(words.hashes), 2), np.uint64)
    found[:, 0] = found[:, 1] = words.hashes
    same = np.flatnonzero(words.owners[1:] == words.owners[:-1])
    # the last word of a text is no first one of a pair: it is there twice
    found[same, 1] = mixed(words.hashes[same] + words.hashes[same + 1] * _AFTER)
    return Features(found.reshape(-1), 2 * words.counts)


def own(found: Features, common: bytes) -> Features:
    """The features without those of the dataset's form, which many rows share. `common`: their hashes (uint64),
    sorted."""
    if not common:
        return found
    shared = np.zeros(len(found.hashes), bool)
    shared[_index(common).find(found.hashes)[0]] = True
    counts = _counts(~shared, found.counts)
    begins = np.cumsum(found.counts) - found.counts
    for text in np.flatnonzero(~_surely_enough(found.hashes[~shared], counts)).tolist():
        begin, end = begins[text], begins[text] + found.counts[text]
        if len(set(found.hashes[begin:end][~shared[begin:end]].tolist())) < FEWEST:
            shared[begin:end] = False
            counts[text] = end - begin
    return Features(found.hashes[~shared], counts)


def _surely_enough(hashes: Array, counts: Array) -> Array:
    """A mask of the texts whose first features show already that `FEWEST` differ."""
    sure = counts >= 2 * FEWEST
    begins = (np.cumsum(counts) - counts)[sure]
    head = np.sort(hashes[begins[:, None] + np.arange(2 * FEWEST)], axis=1)
    sure[sure] = np.count_nonzero(head[:, 1:] != head[:, :-1], axis=1) >= FEWEST - 1
    return sure


def _counts(mask: Array, counts: Array) -> Array:
    """Of how many of its features a mask holds, for each text."""
    sums = np.concatenate([[0], np.cumsum(mask)])
    ends = np.cumsum(counts)
    found: Array = sums[ends] - sums[ends - counts]
    return found


@lru_cache(2)
def _index(common: bytes) -> Index:
    return Index(np.frombuffer(common, np.uint64))


def signatures(halves: Features) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Bands (rows x BANDS) and signatures (rows x SIGNATURE) of rows, by the features of their halves: the prompt of
    the first row, its answer, the prompt of the second row, and so on."""
    rows = len(halves.counts) // 2
    values = _minhash(halves).reshape(rows, 2, BANDS, ROWS)
    bands = np.zeros((rows, BANDS), np.uint64)
    for half in range(2):
        for column in range(ROWS):
            bands = (bands ^ values[:, half, :, column]) * np.uint64(0x9E3779B97F4A7C15)
            bands ^= bands >> np.uint64(29)
    return (bands >> np.uint64(32)).astype(np.uint32), values.reshape(rows, SIGNATURE).astype(np.uint8)


def _minhash(texts: Features) -> NDArray[np.uint32]:
    """The least values (texts x HALF)."""
    offsets = np.zeros(len(texts.counts) + 1, np.uint64)
    np.cumsum(texts.counts, out=offsets[1:])
    matrix: Any = RMinHash.digest_matrix_from_flat_token_hashes(texts.hashes, offsets, HALF, SEED)
    values = array("I")
    for row in matrix.to_rows():
        values.fromlist(row)
    return np.frombuffer(values, np.uint32).reshape(-1, HALF)
