"""Asks the rivals of a job, and times the tuned model beside them."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from services.evaluator.answers import Questions
from services.evaluator.asking import Asking
from services.evaluator.dataset import Dataset
from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Part
from services.evaluator.domain.evaluation import Evaluation
from services.evaluator.domain.questions.prompts import zero_shot
from services.evaluator.grading.graders import Grades
from services.evaluator.rivals.allowed import endpoint_of
from services.evaluator.rivals.client import RivalTrouble, StreamingEndpoint, foreign
from services.evaluator.rivals.compare import TIMED, Asked, Comparison, compare
from shared.events import JobSpec, Rival
from shared.settings import EvaluatorSettings


class Rivals:
    """The rivals of one evaluation. Without any, nothing is asked."""

    def __init__(
        self, rivals: Sequence[Rival], settings: EvaluatorSettings, tuned: str, dataset: Dataset, limit: Limit
    ) -> None:
        self._rivals = rivals if dataset.examples else ()
        self._settings = settings
        self._dataset = dataset
        prompts = tuple((zero_shot(example),) for example in dataset.examples)
        self._questions = [
            Questions(f"rival-{number}-{rival.name}", rival.model, prompts, limit)
            for number, rival in enumerate(self._rivals, 1)
        ]
        self._timed = Questions("timed", tuned, prompts[:TIMED] if self._rivals else (), limit)
        self._answers: list[Answer] = []
        self._asked: list[Asked] = []

    @property
    def questions(self) -> int:
        """How many answers are asked for."""
        return len(self._timed.prompts) + sum(len(questions.prompts) for questions in self._questions)

    async def ask(self, asking: Asking, http: httpx.AsyncClient) -> None:
        """Ask them all. `http`: our own endpoint. The trouble of a rival is noted, and ends nothing."""
        for rival, questions in zip(self._rivals, self._questions, strict=True):
            asked = Asked(rival, questions.variant)
            self._asked.append(asked)
            try:
                endpoint = endpoint_of(rival, self._settings.endpoints)
                async with foreign(endpoint, self._settings.timeout_seconds) as theirs:
                    asked.answers = await asking.answers(questions, StreamingEndpoint(theirs))
            except RivalTrouble as trouble:
                asked.trouble = str(trouble)
        if self._rivals:
            try:
                self._answers = await asking.answers(self._timed, StreamingEndpoint(http, foreign=False))
            except RivalTrouble:  # its answers are there already, and only their time is missing
                self._answers = []

    @property
    def answers(self) -> dict[Part, list[Answer]]:
        """Those of the rivals that could be asked."""
        return {asked.part: asked.answers for asked in self._asked if not asked.trouble}

    def compared(self, evaluation: Evaluation, spec: JobSpec, grades: Grades) -> Comparison | None:
        """The comparison; None without rivals."""
        if not self._asked:
            return None
        return compare(
            self._dataset.examples,
            evaluation,
            self._answers,
            self._asked,
            schema=spec.evaluation.json_schema,
            price=spec.evaluation.own_price,
            seed=spec.seed,
            grades=grades,
        )
