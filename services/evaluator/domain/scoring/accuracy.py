"""Accuracy: the answer is the right label. Case, white space and punctuation around it do not matter."""

from __future__ import annotations

# Without `+`, `-` and `#`, because "C", "C#" and "C++" are three labels.
_AROUND = " \t\r\n.,;:!?\"'`*()[]"


def label_of(text: str) -> str:
    """The label in a uniform spelling. Text that is only punctuation is kept, because it may be the label itself."""
    squeezed = " ".join(text.casefold().split())
    return squeezed.strip(_AROUND) or squeezed


def accuracy(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference's label, else 0.0."""
    return float(label_of(reference) == label_of(answer))
