"""Fuzzy matching: how alike two texts are, character by character. Equal to `rapidfuzz.fuzz.ratio` / 100."""

from __future__ import annotations

from shared.scoring.rouge import common_subsequence


def fuzzy_match(reference: str, answer: str) -> float:
    """Twice the length of the longest common subsequence, as a share of both lengths. Case and white space count; two
    empty texts are equal.

    Time and memory grow with the product of the lengths: see `common_subsequence`.
    """
    both = len(reference) + len(answer)
    return 2 * common_subsequence(reference, answer) / both if both else 1.0
