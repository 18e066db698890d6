"""From answers to the evaluation: score them, put intervals around the scores, let the gate decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from services.evaluator.domain.answers import Answer, Variant, cuts_found
from services.evaluator.domain.evaluation import Evaluation, conclude, score_answers
from services.evaluator.domain.examples import Example, share_of_calls
from services.evaluator.domain.gate import gate_metric
from services.evaluator.domain.scoring import Kinds
from services.evaluator.statistics.intervals import score_intervals
from shared.events import Gate

LABEL_METRICS = ("accuracy", "macro_f1")


def evaluate(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    *,
    labels: tuple[str, ...] | None,
    gate: Gate,
    seed: int,
    room: int | None = None,
    test_wanted: bool = False,
) -> Evaluation:
    """Compare the tuned model with its base on `examples`.

    `answers` has the variants `base` and `tuned`, and `few_shot` if it was asked; each is as long as `examples`.
    `labels` None: the answers are free text. `seed` is that of the intervals. `room`: the most tokens that an answer
    could get. `test_wanted`: the job asked for a test split.
    """
    answers = cuts_found(answers)
    calls = share_of_calls(examples)
    metric, _ = gate_metric(gate, labels, calls)
    kinds = Kinds(
        labels=labels is not None or metric in LABEL_METRICS, calls=calls > 0 or metric.startswith("tool_call_")
    )
    scores = score_answers(examples, answers, kinds)
    intervals = score_intervals(examples, answers, scores, kinds, confidence=gate.confidence, seed=seed)
    return conclude(examples, answers, scores, intervals, labels=labels, gate=gate, room=room, test_wanted=test_wanted)
