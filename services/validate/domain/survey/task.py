"""What a dataset teaches: labels, structured output, tool calls, or free text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from shared.events import TaskKind
from shared.scoring.labels import are_labels

MAJORITY = 0.5
"""The share of rows whose answers call tools: such datasets have plain answers between the calls."""
NEARLY_ALL = 0.9
"""The share of rows whose answers are JSON: the rest is broken, or says that there is nothing to extract."""


def task_kind(rows: int, answers: Mapping[TaskKind, int], labels: Counter[str] | None) -> TaskKind:
    """The task of a dataset.

    `answers`: of how many of the `rows` the answer calls tools, is JSON, and so on. `labels`: how often each answer
    stands as a label; None: there are more than `MAX_LABELS` different ones.
    """
    if not rows:
        return "text"
    if answers.get("tool_calls", 0) >= MAJORITY * rows:
        return "tool_calls"
    if labels and labels.total() == rows and are_labels(labels):
        return "labels"
    if answers.get("structured", 0) >= NEARLY_ALL * rows:
        return "structured"
    return "text"
