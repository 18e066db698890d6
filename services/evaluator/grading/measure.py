"""Grades the answers of one attempt, and has pairs of them judged. Grades that came are kept for a later attempt,
because models that grade cost money."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from services.evaluator.domain.answers import Answer, Part
from services.evaluator.domain.examples import Example
from services.evaluator.grading.graders import Graders, Grades, Grading
from services.evaluator.grading.models import Models
from services.evaluator.grading.pairwise import Pairwise, pairwise
from services.evaluator.progress import Progress
from shared import telemetry
from shared.errors import TunestreamError
from shared.graders.run import Embeds
from shared.settings import Settings
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore

KEPT = "grades.json"
MOST_EARLIER = 10
"""In how many earlier attempts grades are looked for, the newest first."""
AT_A_TIME = 8
"""How many answers are graded at a time."""


class Graded(NamedTuple):
    """What graders and judge found."""

    grades: Grades
    grading: Grading | None
    """None: the job has no graders."""
    pairwise: Pairwise | None
    """None: it has no judge."""


def gradings(attempt: Attempt, examples: int, parts: int) -> int:
    """How many answers and pairs are graded, for the progress."""
    settings = attempt.job.spec.evaluation
    return examples * (parts * bool(settings.graders) + (settings.judge is not None))


async def measure(
    attempt: Attempt,
    objects: ObjectStore,
    settings: Settings,
    progress: Progress,
    examples: Sequence[Example],
    answers: Mapping[Part, Sequence[Answer]],
    embedder: Embeds,
) -> Graded:
    """Grade all of `answers`, which have an entry per example each, and compare those of base and tuned model.

    Raises:
        TransientError, ConfigError: there are no embeddings for a grader, now or by these settings.
    """
    spec = attempt.job.spec
    models = Models(settings, attempt.job.project)
    graders = Graders(spec.evaluation.graders, models, embedder, AT_A_TIME)
    grades: Grades = {part: [{} for _ in given] for part, given in answers.items()}
    if graders.names:
        await progress.begin("graders", len(examples) * len(answers))
        with telemetry.span("evaluator.graders"):
            grades = await _graded(attempt, objects, graders, progress, examples, answers)
    judged = None
    if spec.evaluation.judge is not None and examples:
        await progress.begin("judge", len(examples))
        with telemetry.span("evaluator.judge"):
            judged = await pairwise(
                spec.evaluation.judge,
                models,
                examples,
                answers["base"],
                answers["tuned"],
                progress.count_answer,
                at_a_time=AT_A_TIME,
                confidence=spec.gate.confidence,
                seed=spec.seed,
            )
    return Graded(grades, graders.summary() if graders.names else None, judged)


async def _graded(
    attempt: Attempt,
    objects: ObjectStore,
    graders: Graders,
    progress: Progress,
    examples: Sequence[Example],
    answers: Mapping[Part, Sequence[Answer]],
) -> Grades:
    for prefix in attempt.earlier[:MOST_EARLIER]:
        if found := await objects.get(f"{prefix}{KEPT}"):
            graders.remember(found[0])
            break
    try:
        return await graders.grade(examples, answers, progress.count_answer)
    finally:
        if not attempt.abandoned:
            with contextlib.suppress(TunestreamError):
                await objects.put(f"{attempt.prefix}{KEPT}", graders.kept())
