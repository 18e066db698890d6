"""Cosine similarity: how alike two texts are in meaning, by the angle between their embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from operator import mul


def without_vectors(reference: str, answer: str) -> float | None:
    """The score that needs no model: 1 of equal texts, also of two empty ones; 0 if one of them is empty, because
    nothing means nothing. None: their vectors are needed."""
    reference, answer = reference.strip(), answer.strip()
    if reference == answer:
        return 1.0
    return None if reference and answer else 0.0


def cosine(reference: Sequence[float], answer: Sequence[float]) -> float:
    """The cosine of the angle between two vectors. Where it is negative, the score is 0, as of texts that have nothing
    to do with each other."""
    lengths = math.hypot(*reference) * math.hypot(*answer)
    return min(1.0, max(0.0, sum(map(mul, reference, answer)) / lengths)) if lengths else 0.0
