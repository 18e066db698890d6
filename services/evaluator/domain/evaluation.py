"""From answers to scores, intervals and the gate's verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from services.evaluator.domain.answers import VARIANTS, Answer, Usage, Variant, usage
from services.evaluator.domain.bootstrap import Floats, Statistic, difference, intervals, mean
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate import Measured, Verdict, gate_metric, judge
from services.evaluator.domain.metrics import per_example
from services.evaluator.domain.metrics.macro_f1 import macro_f1
from services.evaluator.domain.metrics.stopping import fair_stop_share, stop_share
from shared.events import FrozenModel, Gate, Interval

LABEL_METRICS = ("accuracy", "macro_f1")


class ScoredAnswer(FrozenModel):
    answer: Answer
    scores: dict[str, float]


class Row(FrozenModel):
    """One example with all its answers. `gain` is tuned minus base on the gate's metric (macro F1: on accuracy)."""

    example: Example
    answers: dict[Variant, ScoredAnswer]
    gain: float


class Evaluation(FrozenModel):
    """Everything that was measured. Score keys are metric names; scores lie between 0 and 1."""

    metric: str
    metric_reason: str
    labels: tuple[str, ...] | None
    examples: int
    scores: dict[Variant, dict[str, float]]
    intervals: dict[Variant, dict[str, Interval]]
    over_base: dict[str, Interval]
    over_few_shot: dict[str, Interval]
    usage: dict[Variant, Usage]
    verdict: Verdict
    rows: tuple[Row, ...]


def evaluate(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    *,
    labels: tuple[str, ...] | None,
    gate: Gate,
    seed: int,
) -> Evaluation:
    """Score all answers and let the gate decide.

    `answers` has `base` and `tuned`, and `few_shot` where that was asked; each as long as `examples`.
    """
    metric, metric_reason = gate_metric(gate, labels)
    as_labels = labels is not None or metric in LABEL_METRICS
    variants = [variant for variant in VARIANTS if variant in answers]
    table = {
        variant: [
            per_example(example.reference, answer.text, as_labels=as_labels)
            for example, answer in zip(examples, answers[variant], strict=True)
        ]
        for variant in variants
    }
    found = _intervals(examples, answers, table, as_labels=as_labels, gate=gate, seed=seed)
    scores = {
        variant: {
            **{name: interval.mean for name, interval in found[variant].items()},
            "stop_share": stop_share(answers[variant]),
        }
        for variant in variants
    }
    measured = Measured(
        metric=metric,
        examples=len(examples),
        base=scores["base"][metric],
        tuned=scores["tuned"][metric],
        over_base=found["over_base"][metric],
        few_shot=scores["few_shot"][metric] if "few_shot" in scores else None,
        over_few_shot=found.get("over_few_shot", {}).get(metric),
        stop_share=fair_stop_share([example.reference for example in examples], answers["tuned"]),
        refused=sum(answer.error is not None for answer in answers["tuned"]),
    )
    by = "accuracy" if metric == "macro_f1" else metric
    return Evaluation(
        metric=metric,
        metric_reason=metric_reason,
        labels=labels,
        examples=len(examples),
        scores=scores,
        intervals={variant: found[variant] for variant in variants},
        over_base=found["over_base"],
        over_few_shot=found.get("over_few_shot", {}),
        usage={variant: usage(answers[variant]) for variant in variants},
        verdict=judge(gate, measured),
        rows=tuple(
            Row(
                example=example,
                answers={
                    variant: ScoredAnswer(answer=answers[variant][index], scores=table[variant][index])
                    for variant in variants
                },
                gain=table["tuned"][index][by] - table["base"][index][by],
            )
            for index, example in enumerate(examples)
        ),
    )


def _intervals(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    table: Mapping[Variant, Sequence[Mapping[str, float]]],
    *,
    as_labels: bool,
    gate: Gate,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Intervals of every variant, of `over_base` and of `over_few_shot`, by metric, all from the same resamples."""
    references = [example.reference for example in examples]
    names = list(per_example("", "", as_labels=as_labels))
    statistics: dict[tuple[str, str], Statistic] = {}

    def column(variant: Variant, name: str) -> Floats:
        return np.array([scores[name] for scores in table[variant]], dtype=np.float64)

    for variant in table:
        for name in names:
            statistics[variant, name] = mean(column(variant, name))
            if variant != "tuned":
                statistics[f"over_{variant}", name] = mean(column("tuned", name) - column(variant, name))
        if as_labels:
            statistics[variant, "macro_f1"] = macro_f1(references, [answer.text for answer in answers[variant]])
    if as_labels:
        for variant in table:
            if variant != "tuned":
                statistics[f"over_{variant}", "macro_f1"] = difference(
                    statistics["tuned", "macro_f1"], statistics[variant, "macro_f1"]
                )
    named = {f"{who}/{name}": statistic for (who, name), statistic in statistics.items()}
    found: dict[str, dict[str, Interval]] = {}
    for key, interval in intervals(named, len(examples), confidence=gate.confidence, seed=seed).items():
        who, _, name = key.partition("/")
        found.setdefault(who, {})[name] = interval
    return found
