"""From answers to the evaluation: score them, put intervals around the scores, let the gate decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from services.evaluator.domain.answers import VARIANTS, Answer, Variant, cuts_found
from services.evaluator.domain.evaluation import Evaluation, Found, conclude
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate.checks import Forgetting, Leak
from services.evaluator.domain.gate.slices import slices_of
from services.evaluator.domain.gate.verdict import gate_metric
from services.evaluator.domain.kinds import Kinds, Task
from services.evaluator.domain.questions.general_questions import GENERAL_QUESTIONS, right
from services.evaluator.domain.replies import Reply
from services.evaluator.grading.graders import Grades
from services.evaluator.scoring import per_example
from services.evaluator.scoring.task import task_of
from services.evaluator.statistics import checks
from services.evaluator.statistics.intervals import score_intervals
from shared.events import Gate


class Beside(NamedTuple):
    """What was asked and looked for beside the test rows."""

    champion: str | None = None
    """The exact id of the model that the alias names."""
    champion_trouble: str = ""
    """Why it has no answers, if it has none."""
    general_base: Sequence[Answer] = ()
    """The answers to `GENERAL_QUESTIONS`; empty if they were not asked. So are those of the tuned model."""
    general_tuned: Sequence[Answer] = ()
    leaks: tuple[Leak, ...] | None = None


def evaluate(
    examples: Sequence[Example],
    answers: Mapping[Variant, Sequence[Answer]],
    *,
    labels: tuple[str, ...] | None,
    gate: Gate,
    seed: int,
    schema: Mapping[str, Any] | None = None,
    beside: Beside | None = None,
    grades: Grades | None = None,
    graders: Sequence[str] = (),
    room: int | None = None,
    test_wanted: bool = False,
) -> Evaluation:
    """Compare the tuned model with its base on `examples`.

    `answers` has the variants `base` and `tuned`, and the others if they were asked; each is as long as `examples`.
    `labels` None: the answers are no labels. `seed` is that of the intervals. `schema`: the JSON schema that structured
    output should match; None: that of the row, else the one that all references match. `grades`: those of the job's
    `graders`, which are named as metrics. `room`: the most tokens that an answer could get. `test_wanted`: the job
    asked for a test split.
    """
    answers, beside = cuts_found(answers), beside or Beside()
    task = task_of(examples, labels)
    metric, _ = gate_metric(gate, task)
    kinds = task.kinds(metric)
    scores = {
        variant: score(examples, answers[variant], task, kinds, schema) for variant in VARIANTS if variant in answers
    }
    if grades:
        scores = {
            variant: [{**row, **more} for row, more in zip(rows, grades[variant], strict=True)]
            for variant, rows in scores.items()
        }
    names = [*per_example(Reply(), Reply(), kinds), *graders]
    intervals = score_intervals(
        examples, answers, scores, names, labels=kinds.labels, confidence=gate.confidence, seed=seed
    )
    by = "accuracy" if metric == "macro_f1" else metric
    found = Found(
        champion=beside.champion,
        champion_trouble=beside.champion_trouble,
        slices=checks.on_slices(
            slices_of(examples, gate.checks.slice_by),
            [row[by] for row in scores["base"]],
            [row[by] for row in scores["tuned"]],
            confidence=gate.confidence,
            seed=seed,
        ),
        forgetting=_forgetting(beside, gate, seed),
        leaks=beside.leaks,
    )
    return conclude(
        examples, answers, scores, intervals, task=task, gate=gate, found=found, room=room, test_wanted=test_wanted
    )


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


def _forgetting(beside: Beside, gate: Gate, seed: int) -> Forgetting | None:
    if not beside.general_base or not beside.general_tuned:
        return None
    base, tuned = (
        [right(question, answer.reply()) for question, answer in zip(GENERAL_QUESTIONS, given, strict=True)]
        for given in (beside.general_base, beside.general_tuned)
    )
    return checks.forgotten(base, tuned, confidence=gate.confidence, seed=seed)
