"""Whether the answers of a dataset are labels of a classification, or free text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from services.evaluator.domain.replies import Reply
from services.evaluator.domain.scoring.accuracy import label_of

MAX_LABELS = 250
MAX_WORDS = 5
MIN_ROWS_EACH = 5
FEW = 20
"""Up to so many different answers, short and often repeated, are labels without a further question."""
MAX_SINGLE = 0.05
"""Of more labels than that, the largest share of rows whose answer no other row has. It is what can be expected of
answers that were never seen (Good 1953): a closed set of labels is seen whole, free text goes on and on."""
RULE = (
    f"answers are labels when there are 2 to {MAX_LABELS} different ones of at most {MAX_WORDS} words each, "
    f"and on average at least {MIN_ROWS_EACH} rows for each; of more than {FEW}, at most {MAX_SINGLE:.0%} of the rows "
    "may have an answer that no other row has"
)


def find_labels(references: Iterable[Reply]) -> tuple[str, ...] | None:
    """The labels (as `label_of` spells them, sorted), or None where the answers are free text or tool calls.

    It stops reading at the first long answer or call, and at the first label beyond the limit.
    """
    seen: Counter[str] = Counter()
    for reference in references:
        label = label_of(reference.text)
        if not label or reference.calls or len(label.split()) > MAX_WORDS:
            return None
        seen[label] += 1
        if len(seen) > MAX_LABELS:
            return None
    if len(seen) < 2 or seen.total() < MIN_ROWS_EACH * len(seen):
        return None
    single = sum(count == 1 for count in seen.values())
    if len(seen) > FEW and single > MAX_SINGLE * seen.total():
        return None
    return tuple(sorted(seen))
