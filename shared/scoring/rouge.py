"""ROUGE-N and ROUGE-L as F-measures (Lin 2004), equal to the `rouge_score` package on ASCII text.

No stemming. Words come from `words.py`, so that other scripts than Latin are scored too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shared.scoring.words import words


def rouge(reference: str, answer: str) -> dict[str, float]:
    """The scores `rouge_1`, `rouge_2` and `rouge_l`, each from 0 to 1."""
    wanted, given = words(reference), words(answer)
    return {
        "rouge_1": _ngram_f(wanted, given, 1),
        "rouge_2": _ngram_f(wanted, given, 2),
        "rouge_l": _f_measure(common_subsequence(wanted, given), len(wanted), len(given)),
    }


def rouge_n(reference: str, answer: str, n: int) -> float:
    """ROUGE of the n-grams of `n` words."""
    return _ngram_f(words(reference), words(answer), n)


def rouge_l(reference: str, answer: str) -> float:
    """ROUGE of the longest common subsequence of words."""
    wanted, given = words(reference), words(answer)
    return _f_measure(common_subsequence(wanted, given), len(wanted), len(given))


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel (Crochemore et al. 2001): one addition of `len(left)`-bit integers per word of `right`. The usual table
    would take seconds for answers of thousands of words. Still time grows with the product of the lengths, and memory
    with `len(left)` times the number of its different words.
    """
    full = (1 << len(left)) - 1
    places: dict[str, int] = {}
    for index, word in enumerate(left):
        places[word] = places.get(word, 0) | 1 << index
    unmatched = full
    for word in right:
        matches = unmatched & places.get(word, 0)
        unmatched = ((unmatched + matches) | (unmatched - matches)) & full
    return len(left) - unmatched.bit_count()


def _ngram_f(wanted: Sequence[str], given: Sequence[str], n: int) -> float:
    left, right = ngrams(wanted, n), ngrams(given, n)
    return _f_measure((left & right).total(), left.total(), right.total())


def ngrams(tokens: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each sequence of `n` tokens occurs."""
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))


def _f_measure(common: int, wanted: int, given: int) -> float:
    """Harmonic mean of precision (common / given) and recall (common / wanted)."""
    return 2 * common / (wanted + given) if common else 0.0
