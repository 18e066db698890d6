"""Exact match: the answer is the reference, but for white space and the Unicode spelling of characters."""

from __future__ import annotations

import unicodedata


def exact_match(reference: str, answer: str) -> float:
    """1.0 if the answer is the reference, else 0.0."""
    return float(_squeezed(reference) == _squeezed(answer))


def _squeezed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())
