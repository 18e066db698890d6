"""Accuracy: the answer is the right label."""

from __future__ import annotations

from shared.scoring.labels import label_of


def accuracy(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference's label, else 0.0."""
    return float(label_of(reference) == label_of(answer))
