"""The labels that the answers of a dataset are, if they are labels of a classification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from services.evaluator.domain.replies import Reply
from shared.scoring.labels import MAX_LABELS, are_labels, short_label_of


def find_labels(references: Iterable[Reply]) -> tuple[str, ...] | None:
    """The labels (as `label_of` spells them, sorted), or None where the answers are free text or tool calls.

    It stops reading at the first long answer or call, and at the first label beyond the limit.
    """
    seen: Counter[str] = Counter()
    for reference in references:
        label = None if reference.calls else short_label_of(reference.text)
        if label is None:
            return None
        seen[label] += 1
        if len(seen) > MAX_LABELS:
            return None
    return tuple(sorted(seen)) if are_labels(seen) else None
