"""Accuracy: the answer is the right label. Case, white space and punctuation around it do not matter."""

from __future__ import annotations

# Not `+`, `-`, `#`: "C", "C#" and "C++" are three labels.
_AROUND = " \t\r\n.,;:!?\"'`*()[]"


def label_of(text: str) -> str:
    """The label in its one spelling. Text of nothing but punctuation is kept: it may be the label itself."""
    squeezed = " ".join(text.casefold().split())
    return squeezed.strip(_AROUND) or squeezed


def accuracy(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference's label, else 0.0."""
    return float(label_of(reference) == label_of(answer))
