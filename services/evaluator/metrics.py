"""The Prometheus metrics of the evaluator. Scores of answers are in `domain/scoring`."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

from services.evaluator.domain.answers import Answer

answers = Counter(
    "tunestream_eval_answers_total",
    "Questions asked; variant: base, few_shot, tuned, champion, general_base, general_tuned, rival, timed, edge; "
    "outcome: answered, refused",
    ["variant", "outcome"],
)
gate = Counter("tunestream_eval_gate_total", "Verdicts of the gate; passed: true, false", ["passed"])

for _passed in ("true", "false"):
    gate.labels(_passed)


def count(variant: str, given: Iterable[Answer]) -> None:
    """Count the answers of a variant."""
    for answer in given:
        answers.labels(variant, "answered" if answer.error is None else "refused").inc()
