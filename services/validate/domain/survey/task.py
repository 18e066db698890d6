"""What a dataset teaches: labels, structured output, tool calls, or free text. The evaluator has the same rule for
labels (services/evaluator/domain/kinds/labels.py)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shared.events import TaskKind

MAX_LABELS = 250
MAX_WORDS = 5
MIN_ROWS_EACH = 5
FEW = 20
MAX_SINGLE = 0.05
"""Of more than `FEW` labels, the largest share of rows whose answer no other row has."""
MAJORITY = 0.5
"""The share of rows whose answers call tools: such datasets have plain answers between the calls."""
NEARLY_ALL = 0.9
"""The share of rows whose answers are JSON: the rest is broken, or says that there is nothing to extract."""

_EDGES = " \t\n\r.,;:!?'\"`*()[]{}<>…。、！？"


def label_of(answer: str) -> str | None:
    """The answer as a label: in small letters, without white space and punctuation at its edges. None: it is too long
    for one, or empty."""
    if len(answer) > 200:
        return None
    label = " ".join(answer.casefold().split()).strip(_EDGES)
    return label if label and label.count(" ") < MAX_WORDS else None


def task_kind(rows: int, answers: Mapping[TaskKind, int], labels: Counter[str] | None) -> TaskKind:
    """The task of a dataset.

    `answers`: of how many of the `rows` the answer calls tools, is JSON, and so on. `labels`: how often each answer
    stands as a label; None: there are more than `MAX_LABELS` different ones.
    """
    if not rows:
        return "text"
    if answers.get("tool_calls", 0) >= MAJORITY * rows:
        return "tool_calls"
    if labels and labels.total() == rows and _are_labels(labels):
        return "labels"
    if answers.get("structured", 0) >= NEARLY_ALL * rows:
        return "structured"
    return "text"


def _are_labels(labels: Counter[str]) -> bool:
    if not 2 <= len(labels) <= MAX_LABELS or labels.total() < MIN_ROWS_EACH * len(labels):
        return False
    single = sum(count == 1 for count in labels.values())
    return len(labels) <= FEW or single <= MAX_SINGLE * labels.total()
