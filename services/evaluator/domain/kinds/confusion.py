"""The confusion matrix: which label was given where which one was right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from shared.events import FrozenModel
from shared.scoring.labels import label_of

OTHER = "(another answer)"


class Confusion(FrozenModel):
    """The matrix of one model. `counts[i][j]`: how often `columns[j]` was given where `rows[i]` was right."""

    rows: tuple[str, ...]
    """The labels among the references, sorted."""
    columns: tuple[str, ...]
    """The same labels, other labels of the dataset that were given, and last `OTHER`: any other answer, or none."""
    counts: tuple[tuple[int, ...], ...]

    def mistakes(self, most: int = 10) -> list[tuple[str, str, int, int]]:
        """What is taken for what, the most frequent first: right label, given label, how often, of how many."""
        found = [
            (right, given, count, sum(line))
            for right, line in zip(self.rows, self.counts, strict=True)
            for given, count in zip(self.columns, line, strict=True)
            if count and given != right
        ]
        return sorted(found, key=lambda mistake: (-mistake[2], mistake[0], mistake[1]))[:most]


def confusion(references: Sequence[str], answers: Sequence[str], labels: Sequence[str]) -> Confusion:
    """Count the answers by right and given label. `labels`: all labels of the dataset, as `label_of` spells them."""
    known = set(labels)
    pairs = Counter(
        (label_of(reference), given if (given := label_of(answer)) in known else OTHER)
        for reference, answer in zip(references, answers, strict=True)
    )
    rows = sorted({right for right, _ in pairs})
    more = sorted({given for _, given in pairs} - {*rows, OTHER})
    columns = [*rows, *more, OTHER]
    counts = tuple(tuple(pairs[right, given] for given in columns) for right in rows)
    return Confusion(rows=tuple(rows), columns=tuple(columns), counts=counts)
