"""Runs the graders of the job on the answers of every variant."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from services.evaluator.domain.answers import Answer
from services.evaluator.domain.examples import Example
from services.evaluator.domain.gate.echo import question_of
from shared.errors import InputError
from shared.events import FrozenModel
from shared.events.spec import GRADER
from shared.graders.domain.graders import Grader, Multi, ScoreModel, parse
from shared.graders.domain.outcome import Errors, Outcome
from shared.graders.run import Asks, Embeds, run
from shared.tasks import gather_or_cancel

Grades = Mapping[str, Sequence[Mapping[str, float]]]
"""By what was asked, for each example: metric -> grade, from 0 to 1."""


class Grading(FrozenModel):
    """What the graders could not grade: such an answer has a grade of 0."""

    failed: Mapping[str, Mapping[str, int]] = {}
    """By metric: error -> how many answers."""
    asked: int = 0
    """How many answers were graded."""


class Graders:
    """The graders of one job. Without any, nothing is graded."""

    def __init__(self, described: Sequence[Mapping[str, Any]], models: Asks, embedder: Embeds, at_a_time: int) -> None:
        self._graders: dict[str, Grader] = {}
        for at, one in enumerate(described):
            grader = parse(dict(one), where=f"evaluation.graders[{at}]")
            self._graders[f"{GRADER}{grader.name}"] = grader
        self._models = models
        self._embedder = embedder
        self._slots = asyncio.Semaphore(at_a_time)
        self._known: dict[str, tuple[float, str]] = {}
        """Grades by the digest of what was graded: an answer that two variants give is graded once."""
        self._failed: dict[str, Counter[str]] = {name: Counter() for name in self._graders}
        self._asked = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics."""
        return tuple(self._graders)

    def remember(self, kept: bytes) -> None:
        """Take over the grades that an earlier attempt kept."""
        self._known |= {digest: (float(grade), str(error)) for digest, (grade, error) in json.loads(kept).items()}

    def kept(self) -> bytes:
        """The grades, for a later attempt."""
        return json.dumps(self._known).encode()

    def summary(self) -> Grading:
        """How many were graded, and what could not be."""
        return Grading(failed={name: dict(found) for name, found in self._failed.items() if found}, asked=self._asked)

    async def grade(
        self,
        examples: Sequence[Example],
        answers: Mapping[str, Sequence[Answer]],
        graded: Callable[[], Awaitable[None]],
    ) -> Grades:
        """The grades of all answers. `graded` is awaited after each answer.

        Raises:
            TransientError, ConfigError: there are no embeddings, now or by these settings.
        """
        return {part: await self._part(examples, given, graded) for part, given in answers.items()}

    async def _part(
        self, examples: Sequence[Example], answers: Sequence[Answer], graded: Callable[[], Awaitable[None]]
    ) -> list[dict[str, float]]:
        async def one(example: Example, answer: Answer) -> dict[str, float]:
            async with self._slots:
                found = {name: await self._one(name, example, answer) for name in self._graders}
            await graded()
            return found

        if not self._graders:
            return [{} for _ in answers]
        return await gather_or_cancel([one(*pair) for pair in zip(examples, answers, strict=True)])

    async def _one(self, name: str, example: Example, answer: Answer) -> float:
        grader, sample, item = self._graders[name], answer.reply().text, item_of(example)
        content = json.dumps([grader.model_dump(), sample, item], sort_keys=True)
        digest = hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
        self._asked += 1
        if digest not in self._known:
            try:
                outcome = await run(grader, sample, item, self._models, self._embedder, {}, labels=True)
            except InputError:
                outcome = Outcome(errors=Errors(other_error=True))  # a text that is too long to be compared
            grade, error = scaled(grader, outcome), _error(outcome.errors)
            if not outcome.errors.model_grader_server_error:  # that is the endpoint's fault, and may be over later
                self._known[digest] = (grade, error)
        else:
            grade, error = self._known[digest]
        if error:
            self._failed[name][error] += 1
        return grade


def item_of(example: Example) -> dict[str, Any]:
    """What templates may name of a row."""
    return {
        "reference": example.reply().text,
        "prompt": question_of(example),
        "messages": list(example.messages),
        "metadata": dict(example.metadata),
    }


def scaled(grader: Grader, outcome: Outcome) -> float:
    """The reward from 0 to 1: of a score model within its range, of a formula cut at both ends; 0 with an error."""
    if outcome.errors.any:
        return 0.0
    low, high = grader.limits if isinstance(grader, ScoreModel) else (0.0, 1.0)
    grade = (outcome.reward - low) / (high - low)
    return min(max(grade, 0.0), 1.0) if isinstance(grader, Multi | ScoreModel) else outcome.reward


def _error(errors: Errors) -> str:
    return next((name for name, told in errors.view().items() if told is True), "")
