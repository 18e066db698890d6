"""Macro F1: the F1 of each label, averaged, so that a rare label weighs as much as a common one.

It is a metric of the whole set and not a mean over examples, so the bootstrap calculates it anew in every resample.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.domain.scoring.accuracy import label_of
from services.evaluator.statistics.bootstrap import Floats, Statistic


def macro_f1(references: Sequence[str], answers: Sequence[str]) -> Statistic:
    """Macro F1 over the labels among the references of a resample.

    An answer that is none of these labels lowers the recall of the right label, and the precision of none.
    """
    wanted = [label_of(text) for text in references]
    given = [label_of(text) for text in answers]
    labels = sorted(set(wanted))
    is_wanted = np.array([[text == label for label in labels] for text in wanted], dtype=np.float64)  # (n, labels)
    is_given = np.array([[text == label for label in labels] for text in given], dtype=np.float64)
    hit = is_wanted * is_given

    def statistic(weights: Floats) -> Floats:
        support = weights @ is_wanted  # (resamples, labels)
        f1 = 2 * (weights @ hit) / np.maximum(support + weights @ is_given, 1.0)
        present = support > 0
        return np.asarray((f1 * present).sum(axis=1) / np.maximum(present.sum(axis=1), 1), dtype=np.float64)

    return statistic
