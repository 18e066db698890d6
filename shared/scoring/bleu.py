"""BLEU (Papineni et al. 2002) and GLEU (Wu et al. 2016) of one answer and one reference, equal to nltk.

Words come from `words.py`, so case does not count, and other scripts than Latin are scored too.
"""

from __future__ import annotations

import math

from shared.scoring.rouge import ngrams
from shared.scoring.words import words

ORDERS = 4
"""The longest n-grams that are counted."""


def bleu(reference: str, answer: str) -> float:
    """The geometric mean of the precisions of the n-grams up to 4, times the penalty for an answer that is too short.

    BLEU is made for whole corpora: of a single sentence without a common 4-gram it is 0. So both counts of the n-grams
    from 2 on are raised by one (Lin and Och 2004), and only orders that the answer is long enough for are counted.
    nltk calls it `SmoothingFunction().method2`, with so many weights.
    """
    wanted, given = words(reference), words(answer)
    orders = range(1, min(ORDERS, len(given)) + 1)
    logarithms = 0.0
    for n in orders:
        theirs, ours = ngrams(wanted, n), ngrams(given, n)
        more = 0 if n == 1 else 1
        common = (theirs & ours).total() + more
        if not common:
            return 0.0
        logarithms += math.log(common / (ours.total() + more))
    if not given:
        return 0.0
    brevity = min(0.0, 1 - len(wanted) / len(given))
    return math.exp(brevity + logarithms / len(orders))


def gleu(reference: str, answer: str) -> float:
    """The n-grams up to 4 in common, as a share of those of the longer text."""
    wanted, given = words(reference), words(answer)
    common = ours = theirs = 0
    for n in range(1, ORDERS + 1):
        left, right = ngrams(wanted, n), ngrams(given, n)
        common += (left & right).total()
        theirs += left.total()
        ours += right.total()
    return common / max(ours, theirs) if common else 0.0
