"""Accuracy: the answer is the right label. The Unicode form of characters, case, white space and the punctuation of any
script around it do not matter."""

from __future__ import annotations

import unicodedata

_KEPT = "+-#@&%/\\"  # "C", "C#" and "C++" are three labels, and so are "5" and "5%"


def label_of(text: str) -> str:
    """The label in a uniform spelling. Text that is only punctuation is kept, because it may be the label itself."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    squeezed = " ".join("".join(mark for mark in folded if unicodedata.category(mark) != "Cf").split())
    start, end = 0, len(squeezed)
    while start < end and _surrounds(squeezed[start]):
        start += 1
    while end > start and _surrounds(squeezed[end - 1]):
        end -= 1
    return squeezed[start:end] or squeezed


def accuracy(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference's label, else 0.0."""
    return float(label_of(reference) == label_of(answer))


def _surrounds(character: str) -> bool:
    """White space, punctuation, or a backtick, which Unicode counts among the symbols."""
    if character in _KEPT:
        return False
    return character.isspace() or character == "`" or unicodedata.category(character).startswith("P")
