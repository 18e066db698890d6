"""Intervals around every score of every variant and around every difference, all from the same subsets of examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.evaluation import Intervals
from services.evaluator.domain.examples import Example
from services.evaluator.statistics.macro_f1 import MacroF1
from services.evaluator.statistics.sign_flips import Figure, Floats, intervals
from shared.events import Interval


class _Key(NamedTuple):
    """One figure that gets an interval: a metric of a variant, or of the tuned model minus that variant."""

    variant: Variant
    metric: str
    minus: bool = False


def score_intervals(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    scores: Mapping[Variant, Sequence[Mapping[str, float]]],
    names: Sequence[str],
    *,
    labels: bool,
    confidence: float,
    seed: int,
) -> Intervals:
    """The intervals of an evaluation. `answers` and `scores` (metric -> value) have an entry per example, in its order.

    `names`: the metrics in `scores`. `labels`: macro F1 is measured, too.
    """
    references = [example.reply().text for example in examples]
    others: list[Variant] = [variant for variant in scores if variant != "tuned"]
    figures: dict[_Key, Figure] = {}
    macro_f1 = {
        variant: MacroF1(references, [answer.reply().text for answer in answers[variant]])
        for variant in scores
        if labels
    }

    def column(variant: Variant, name: str) -> Floats:
        return np.array([row[name] for row in scores[variant]], dtype=np.float64)

    for variant in scores:
        for name in names:
            figures[_Key(variant, name)] = Figure(column(variant, name), (0.0, 1.0))
        if labels:
            figures[_Key(variant, "macro_f1")] = macro_f1[variant].figure()
    for variant in others:
        for name in names:
            gains = column("tuned", name) - column(variant, name)
            figures[_Key(variant, name, minus=True)] = Figure(gains, (-1.0, 1.0))
        if labels:
            figures[_Key(variant, "macro_f1", minus=True)] = macro_f1["tuned"].minus(macro_f1[variant])
    found = intervals(figures, len(examples), confidence=confidence, seed=seed)

    def intervals_of(variant: Variant, minus: bool = False) -> dict[str, Interval]:
        return {key.metric: interval for key, interval in found.items() if (key.variant, key.minus) == (variant, minus)}

    return Intervals(
        variants={variant: intervals_of(variant) for variant in scores},
        over_base=intervals_of("base", minus=True),
        over_few_shot=intervals_of("few_shot", minus=True),
        over_champion=intervals_of("champion", minus=True),
    )
