"""From answers to the evaluation: score them, put intervals around the scores, let the gate decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from services.evaluator.domain.answers import VARIANTS, Answer, Variant, cuts_found
from services.evaluator.domain.evaluation import Evaluation, conclude
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate import gate_metric
from services.evaluator.domain.kinds import Kinds, Task
from services.evaluator.domain.replies import Reply
from services.evaluator.scoring import per_example
from services.evaluator.scoring.task import task_of
from services.evaluator.statistics.intervals import score_intervals
from shared.events import Gate


def evaluate(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    *,
    labels: tuple[str, ...] | None,
    gate: Gate,
    seed: int,
    schema: Mapping[str, Any] | None = None,
    room: int | None = None,
    test_wanted: bool = False,
) -> Evaluation:
    """Compare the tuned model with its base on `examples`.

    `answers` has the variants `base` and `tuned`, and `few_shot` if it was asked; each is as long as `examples`.
    `labels` None: the answers are no labels. `seed` is that of the intervals. `schema`: the JSON schema that structured
    output should match; None: that of the row, else the one that all references match. `room`: the most tokens that an
    answer could get. `test_wanted`: the job asked for a test split.
    """
    answers = cuts_found(answers)
    task = task_of(examples, labels)
    metric, _ = gate_metric(gate, task)
    kinds = task.kinds(metric)
    scores = {
        variant: score(examples, answers[variant], task, kinds, schema) for variant in VARIANTS if variant in answers
    }
    names = list(per_example(Reply(), Reply(), kinds))
    intervals = score_intervals(
        examples, answers, scores, names, labels=kinds.labels, confidence=gate.confidence, seed=seed
    )
    return conclude(examples, answers, scores, intervals, task=task, gate=gate, room=room, test_wanted=test_wanted)


def score(
    examples: Sequence[Example],
    answers: Sequence[Answer],
    task: Task,
    kinds: Kinds,
    schema: Mapping[str, Any] | None = None,
) -> list[dict[str, float]]:
    """Score every answer against the reference of its example, both as a client sees them."""
    return [
        per_example(example.reply(), answer.reply(), kinds, schema or example.response_schema or task.inferred)
        for example, answer in zip(examples, answers, strict=True)
    ]
