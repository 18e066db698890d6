"""BLEU and chrF of one answer and one reference, by sacrebleu, from 0 to 1.

Both are made for whole corpora. Here they are of one answer, and their mean is shown, so that they get paired intervals
as all other scores. The graders of the OpenAI API have a BLEU of their own, `shared/scoring/bleu.py`.
"""

from __future__ import annotations

from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

_BLEU = BLEU(effective_order=True)
"""With `effective_order` only n-grams count that the answer is long enough for, as sacrebleu advises for sentences."""
_CHRF = CHRF()


def overlap(reference: str, answer: str) -> dict[str, float]:
    """`bleu` (4-grams of words, its own tokenizer 13a) and `chrf` (6-grams of characters). Two empty texts are equal.

    Scripts without spaces are one long word to BLEU; chrF compares them well.
    """
    wanted, given = reference.strip(), answer.strip()
    if not wanted or not given:
        return dict.fromkeys(("bleu", "chrf"), float(wanted == given))
    return {
        "bleu": min(_BLEU.sentence_score(given, [wanted]).score / 100, 1.0),
        "chrf": min(_CHRF.sentence_score(given, [wanted]).score / 100, 1.0),
    }
