"""What near-duplicates have in common: words and pairs of words of a row, and their MinHash signatures.

Two rows are nearly the same if their prompts are and their answers are. So a signature has a half for each, and a band
of the locality-sensitive hash (Indyk and Motwani 1998) takes from both: rows that share only their prompt, or only
their answer, never become candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

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

_WORD = re.compile(r"\w+")
_ASCII_WORDS = bytes(ord(char.lower()) if char.isalnum() or char == "_" else 32 for char in map(chr, range(128)))
_TABLE = _ASCII_WORDS + bytes(range(128, 256))
_LONG_WORD = 24
MAX_WORDS = 4000
"""Words of a text that are read. Books that agree in so many are near-duplicates."""


def words_of(text: str) -> list[str]:
    """The words in small letters. Scripts without spaces give pairs of characters instead."""
    text = text[: MAX_WORDS * 12]
    if text.isascii():
        return text.encode().translate(_TABLE).decode().split()[:MAX_WORDS]  # faster than the expression
    words = _WORD.findall(text.casefold())[:MAX_WORDS]
    if any(len(word) > _LONG_WORD for word in words):
        words = [piece for word in words for piece in _pieces(word)]
    return words


def _pieces(word: str) -> Iterable[str]:
    if len(word) <= _LONG_WORD:
        return (word,)
    return (word[at : at + 2] for at in range(len(word) - 1))


def features(words: Sequence[str]) -> list[str]:
    """The words and the pairs of neighbours. What a text has twice is there twice: a MinHash is the same with it, and a
    set would take twice as long."""
    return [*words, *map(" ".join, pairwise(words))]


def own(found: list[str], common: AbstractSet[str]) -> list[str]:
    """The features without those of the dataset's form, which many rows share."""
    if not common:
        return found
    rest = [each for each in found if each not in common]
    different = len(set(rest[: 2 * FEWEST])) >= FEWEST or len(set(rest)) >= FEWEST
    return rest if different else found


def signatures(prompts: list[list[str]], answers: list[list[str]]) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    """Bands (rows x BANDS) and signatures (rows x SIGNATURE) of rows, by the features of their halves."""
    values = np.concatenate([_minhash(prompts), _minhash(answers)], axis=1)
    joined = np.concatenate(
        [values[:, :HALF].reshape(-1, BANDS, ROWS), values[:, HALF:].reshape(-1, BANDS, ROWS)], axis=2
    ).astype(np.uint64)
    bands = np.zeros(joined.shape[:2], np.uint64)
    for column in range(2 * ROWS):
        bands = (bands ^ joined[:, :, column]) * np.uint64(0x9E3779B97F4A7C15)
        bands ^= bands >> np.uint64(29)
    return (bands >> np.uint64(32)).astype(np.uint32), (values & 0xFF).astype(np.uint8)


def _minhash(sets: list[list[str]]) -> NDArray[np.uint32]:
    matrix: Any = RMinHash.digest_matrix_from_token_sets(sets, HALF, SEED)
    return np.asarray(matrix.to_rows(), np.uint32).reshape(len(sets), HALF)
