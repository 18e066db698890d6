"""Exact match: the answer equals the reference, apart from white space and the Unicode form of characters."""

from __future__ import annotations

import unicodedata


def exact_match(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference, else 0.0."""
    return float(_squeezed(reference) == _squeezed(answer))


def _squeezed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
