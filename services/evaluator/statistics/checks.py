"""The figures of the gate's checks that need intervals: slices of the test rows, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.evaluator.domain.gate.checks import Forgetting, Slice
from services.evaluator.domain.gate.verdict import examples_needed
from services.evaluator.statistics.sign_flips import Figure, Floats, intervals
from shared.events import Interval


def on_slices(
    slices: Mapping[str, Sequence[int]],
    base: Sequence[float],
    tuned: Sequence[float],
    *,
    confidence: float,
    seed: int,
) -> tuple[Slice, ...]:
    """The scores on every slice, and the interval of their difference. The confidence is that of all intervals of
    judged slices together (Bonferroni), so that many slices do not make one look worse by chance."""
    judged = _judged(slices, confidence)
    each = 1 - (1 - confidence) / max(len(judged), 1)
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    return tuple(
        Slice(
            name=name,
            examples=len(chosen),
            base=float(before[list(chosen)].mean()),
            tuned=float(after[list(chosen)].mean()),
            over_base=_difference(before[list(chosen)], after[list(chosen)], each, seed),
            judged=name in judged,
        )
        for name, chosen in slices.items()
    )


def forgotten(base: Sequence[float], tuned: Sequence[float], *, confidence: float, seed: int) -> Forgetting:
    """The shares of general questions that were answered right, and the interval of their difference."""
    before, after = np.asarray(base, dtype=np.float64), np.asarray(tuned, dtype=np.float64)
    return Forgetting(
        questions=len(before),
        base=float(before.mean()),
        tuned=float(after.mean()),
        over_base=_difference(before, after, confidence, seed),
    )


def _judged(slices: Mapping[str, Sequence[int]], confidence: float) -> set[str]:
    """Those that are large enough even if all of them are judged. The largest are judged if not all can be."""
    by_size = sorted(slices, key=lambda name: -len(slices[name]))
    enough = 0
    for count, name in enumerate(by_size, 1):
        if len(slices[name]) >= examples_needed(1 - (1 - confidence) / count):
            enough = count
    return set(by_size[:enough])


def _difference(base: Floats, tuned: Floats, confidence: float, seed: int) -> Interval:
    figure = Figure(tuned - base, (-1.0, 1.0))
    return intervals({"difference": figure}, len(base), confidence=confidence, seed=seed)["difference"]
