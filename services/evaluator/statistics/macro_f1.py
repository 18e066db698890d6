"""Macro F1: the F1 of each label, averaged, so that a rare label weighs as much as a common one.

It is a metric of the whole set and not a mean over examples. For its interval each example gets a pseudo-value (Tukey
1958): how much the metric changes without it. Their mean is set to the metric.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.evaluator.statistics.sign_flips import Figure, Floats
from shared.scoring.labels import label_of


class MacroF1:
    """Macro F1 of one model's answers, over the labels among the references.

    An answer that is none of these labels lowers the recall of the right label, and the precision of none.
    """

    def __init__(self, references: Sequence[str], answers: Sequence[str]) -> None:
        wanted = [label_of(text) for text in references]
        given = [label_of(text) for text in answers]
        labels = sorted(set(wanted))
        shape = (len(wanted), len(labels))
        self.wanted = np.array([[text == label for label in labels] for text in wanted], dtype=np.float64).reshape(
            shape
        )
        self.given = np.array([[text == label for label in labels] for text in given], dtype=np.float64).reshape(shape)
        self.hit = self.wanted * self.given

    def score(self) -> float:
        """The metric on all examples, from 0 to 1; 0 without examples."""
        return float(_macro_f1(self.wanted.sum(axis=0), self.given.sum(axis=0), self.hit.sum(axis=0)))

    def pseudo_values(self) -> Floats:
        """A value per example, of shape (examples,), with the metric as their mean."""
        count = len(self.wanted)
        if count == 0:
            return np.zeros(0)
        without = _macro_f1(*(table.sum(axis=0) - table for table in (self.wanted, self.given, self.hit)))
        changes = (count - 1) * (without.mean() - without)
        return np.asarray(self.score() + changes, dtype=np.float64)

    def figure(self) -> Figure:
        """The metric, to get an interval."""
        return Figure(self.pseudo_values(), (0.0, 1.0))

    def minus(self, other: MacroF1) -> Figure:
        """The metric minus that of another model on the same references, to get an interval."""
        return Figure(
            self.pseudo_values() - other.pseudo_values(),
            (-1.0, 1.0),
            swapped=lambda subsets: self._mixed(other, subsets) - other._mixed(self, subsets),
        )

    def _mixed(self, other: MacroF1, subsets: Floats) -> Floats:
        """The metric if the answers to each subset, of shape (subsets, examples), came from the other model."""
        given, hit = (
            mine.sum(axis=0) + subsets @ (theirs - mine)
            for mine, theirs in ((self.given, other.given), (self.hit, other.hit))
        )
        return _macro_f1(self.wanted.sum(axis=0), given, hit)


def _macro_f1(support: Floats, given: Floats, hit: Floats) -> Floats:
    """From counts of shape (…, labels) to the metric of shape (…); a label without support does not count."""
    f1 = 2 * hit / np.maximum(support + given, 1.0)
    present = support > 0
    return np.asarray((f1 * present).sum(axis=-1) / np.maximum(present.sum(axis=-1), 1), dtype=np.float64)
