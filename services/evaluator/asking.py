"""Asks the questions of one attempt: the test rows of every variant, the general questions and the edge prompts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from services.evaluator import metrics
from services.evaluator.answers import AnswerCache, Answers, Asks, Questions, ask_all
from services.evaluator.client import Endpoint, KeyRefused, ModelSleeps
from services.evaluator.dataset import Dataset
from services.evaluator.domain.answer_length import Limit
from services.evaluator.domain.answers import Answer, Part
from services.evaluator.domain.questions import general_questions
from services.evaluator.domain.questions.edge_prompts import EdgePrompt, EdgeResult, as_prompt
from services.evaluator.domain.questions.general_questions import GENERAL_QUESTIONS
from services.evaluator.domain.questions.prompts import few_shot_prompts, zero_shot
from services.evaluator.progress import Progress
from services.evaluator.reach import Reach
from services.evaluator.rivals.compare import AT_A_TIME
from shared import telemetry
from shared.errors import ConfigError, TransientError, TunestreamError
from shared.events import TrainingCompleted
from shared.stages.stage import Attempt
from shared.store.patience import when_the_store_answers
from shared.tasks import gather_or_cancel

KEEP_SECONDS = 5.0
"""How long an attempt that ends early may take to store the answers that it has."""
EDGE_PATIENCE = 30.0
"""In seconds. It is short, because an endpoint that fails on an edge prompt is worth reporting, not worth waiting
for."""


class Asking:
    """Asks the questions of one attempt, and loses no answer that came."""

    def __init__(
        self,
        attempt: Attempt,
        endpoint: Endpoint,
        reach: Reach,
        cache: AnswerCache,
        progress: Progress,
        at_a_time: int,
    ) -> None:
        self._attempt = attempt
        self._endpoint = endpoint
        self._reach = reach
        self._cache = cache
        self._progress = progress
        self._at_a_time = at_a_time

    async def say(self, why: str) -> None:
        """What is done waits for the store."""
        await self._attempt.progress("waiting", f"what was measured waits to be stored: {why}")

    async def answers(self, questions: Questions, rival: Asks | None = None) -> list[Answer]:
        """The answers to one part of the questions, those of earlier attempts among them. `rival`: another endpoint
        that is asked; its trouble is not that of ours."""
        await self._progress.begin(questions.variant, len(questions.prompts))
        about = {"tunestream.model": questions.model, "tunestream.examples": len(questions.prompts)}
        with telemetry.span(f"evaluator.{_kind(questions.variant)}", attributes=about) as current:
            answers = await self._cache.get(questions)
            missing = [index for index, answer in enumerate(answers) if answer is None]
            current.set_attribute("tunestream.reused", not missing)
            await self._progress.count_reused(len(answers) - len(missing))
            if missing:
                await self._ask(questions, answers, missing, rival)
            return [answer for answer in answers if answer is not None]

    async def unscored(
        self, prompts: Sequence[EdgePrompt], training: TrainingCompleted, dataset: Dataset, max_tokens: int
    ) -> list[EdgeResult]:
        """The answers of base and tuned model to prompts without a reference. An endpoint that fails on one is worth
        reporting."""
        slots = asyncio.Semaphore(self._at_a_time)
        await self._progress.begin("edge prompts", 2 * len(prompts))

        async def ask(model: str, edge: EdgePrompt) -> Answer:
            async with slots:
                try:
                    prompt = as_prompt(edge, completion=dataset.completion)
                    answer = await self._endpoint.ask(model, [prompt], max_tokens, patience=EDGE_PATIENCE)
                except (ModelSleeps, KeyRefused):
                    raise
                except (TransientError, ConfigError) as error:
                    answer = Answer(error=str(error))
            metrics.count("edge", [answer])
            await self._progress.count_answer()
            return answer

        async def both(edge: EdgePrompt) -> EdgeResult:
            base, tuned = await gather_or_cancel([ask(training.base, edge), ask(training.model, edge)])
            return EdgeResult(prompt=edge, base=base, tuned=tuned)

        with telemetry.span("evaluator.edge_prompts"):
            edges = await gather_or_cancel([both(edge) for edge in prompts])
            if all(edge.base.error and edge.tuned.error for edge in edges):
                await self._reach.check()  # not the prompts are to blame, if nobody answers
            return edges

    async def _ask(self, questions: Questions, answers: Answers, missing: list[int], rival: Asks | None) -> None:
        at_a_time = self._at_a_time if rival is None else min(self._at_a_time, AT_A_TIME)
        asking = ask_all(rival or self._endpoint, questions, answers, at_a_time, self._progress.count_answer)
        try:
            await (asking if rival else self._reach.during(asking))
        except BaseException:
            if any(answers[index] for index in missing) and not self._attempt.abandoned:
                with contextlib.suppress(TunestreamError, TimeoutError):
                    async with asyncio.timeout(KEEP_SECONDS):
                        await self._cache.put(questions, answers)
            raise
        finally:
            metrics.count(
                _kind(questions.variant), [answer for index in missing if (answer := answers[index]) is not None]
            )
        await when_the_store_answers(lambda: self._cache.put(questions, answers), self.say)


def _kind(part: Part) -> str:
    """The part without the name of a rival, of which there are any number."""
    return part.split("-")[0]


def questions_of(
    training: TrainingCompleted, dataset: Dataset, limit: Limit, *, champion: str | None, general: bool
) -> list[Questions]:
    """What is asked. Without solved examples there is no few-shot variant. `champion`: the model that is to be compared
    with, if there is one; `general`: whether the general questions are asked."""
    plain = tuple((zero_shot(example),) for example in dataset.examples)
    shown = tuple(few_shot_prompts(example, dataset.solved) for example in dataset.examples)
    asked = [Questions("base", training.base, plain, limit)]
    if dataset.solved:
        asked.append(Questions("few_shot", training.base, shown, limit))
    asked.append(Questions("tuned", training.model, plain, limit))
    if champion is not None:
        asked.append(Questions("champion", champion, plain, limit))
    if general:
        asked += _general(training, dataset, limit)
    return asked


def _general(training: TrainingCompleted, dataset: Dataset, limit: Limit) -> Sequence[Questions]:
    prompts = tuple(
        (general_questions.as_prompt(question, completion=dataset.completion),) for question in GENERAL_QUESTIONS
    )
    short = Limit(tokens=general_questions.MAX_TOKENS, reason="answers are short", thinking=limit.thinking)
    parts: list[tuple[Part, str]] = [("general_base", training.base), ("general_tuned", training.model)]
    return [Questions(part, model, prompts, short) for part, model in parts]
