"""One attempt at the stage: ask the base, the base with few-shot prompts and the tuned model, compare them, write the
report."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Callable

import httpx

from services.evaluator import metrics
from services.evaluator.answers import AnswerCache, Answers, Questions, ask_all, gather_or_cancel
from services.evaluator.client import Endpoint, KeyRefused, ModelSleeps, connect
from services.evaluator.dataset import Dataset, load
from services.evaluator.domain.answer_length import Limit, answer_limit
from services.evaluator.domain.answers import Answer, Variant
from services.evaluator.domain.asking import how_asked
from services.evaluator.domain.edge_prompts import EDGE_PROMPTS, EdgePrompt, EdgeResult, as_prompt
from services.evaluator.domain.prompts import few_shot_prompts, zero_shot
from services.evaluator.evaluate import evaluate
from services.evaluator.progress import Progress
from services.evaluator.reach import Reach
from services.evaluator.report import Report, render
from services.evaluator.scoring.structured import checked
from shared import disk, telemetry
from shared.base import BaseProfile
from shared.base import ledger as profiles
from shared.errors import ConfigError, CorruptObject, TransientError, TunestreamError
from shared.events import EvalCompleted, Event, Reference, TrainingCompleted
from shared.settings import Settings
from shared.stages.adoption import attempts_of_parents
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore
from shared.store.patience import when_the_store_answers

KEEP_SECONDS = 5.0
"""How long an attempt that ends early may take to store the answers that it has."""
EDGE_PATIENCE = 30.0
"""In seconds. It is short, because an endpoint that fails on an edge prompt is worth reporting, not worth waiting
for."""


class EvaluateWork:
    """One attempt at the stage: takes `training.completed`, returns `eval.completed`."""

    def __init__(self, objects: ObjectStore, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._settings = settings
        self._clock = clock

    async def __call__(self, attempt: Attempt) -> Event:
        """Evaluate the model of a training.

        Raises:
            InputError: a row of a split cannot be read.
            TransientError, ConfigError: the endpoint, its model server or the object store do not answer, or a setting
                is wrong; in one line. Answers that came are kept for the next attempt.
        """
        job = attempt.job
        async with connect(self._settings, job.project) as http:
            reach = Reach(http)
            await reach.check()
            with disk.writing(tempfile.gettempdir(), "TMPDIR"):
                return await self._evaluate(attempt, http, reach)

    async def _evaluate(self, attempt: Attempt, http: httpx.AsyncClient, reach: Reach) -> Event:
        training = TrainingCompleted.model_validate(attempt.request)
        spec = attempt.job.spec
        if spec.evaluation.json_schema is not None:
            checked(spec.evaluation.json_schema)
        with telemetry.span("evaluator.load"):
            profile = await self._profile(training)
            # a template that loops over parts writes them as they are; for others the server puts line ends between
            between = "" if profile and profile.content_format == "openai" else "\n"
            dataset = await load(
                self._objects, training.test, training.train, spec.evaluation, spec.seed, between=between
            )
        limit = answer_limit(spec.evaluation.max_tokens, dataset.lengths)
        asked = _questions(training, dataset, limit)
        progress = Progress(attempt, len(dataset.examples) * len(asked) + 2 * len(EDGE_PROMPTS), self._clock)
        endpoint = Endpoint(http, patience=self._settings.evaluator.timeout_seconds)
        parents = await attempts_of_parents(self._objects, attempt.job, "evaluator")
        wanted = spec.evaluation.concurrency
        at_a_time = await endpoint.room(training.base) if wanted == "auto" else wanted
        cache = AnswerCache(self._objects, attempt, parents)
        asking = _Asking(attempt, endpoint, reach, cache, progress, at_a_time)
        answers: dict[Variant, list[Answer]] = {}
        for questions in asked:
            answers[questions.variant] = await asking.answers(questions)
        with telemetry.span("evaluator.edge_prompts"):
            edges = await self._edge_prompts(attempt, endpoint, progress, training, dataset, limit.tokens, at_a_time)
            if all(edge.base.error and edge.tuned.error for edge in edges):
                await reach.check()  # not the prompts are to blame, if nobody answers
        with telemetry.span("evaluator.score"):
            evaluation = await asyncio.to_thread(
                evaluate,
                dataset.examples,
                answers,
                labels=dataset.labels,
                gate=spec.gate,
                seed=spec.seed,
                schema=spec.evaluation.json_schema,
                room=limit.tokens + limit.thinking,
                test_wanted=spec.splits.test > 0,
            )
        metrics.gate.labels(str(evaluation.verdict.passed).lower()).inc()
        report = Report(
            job_id=attempt.job.job_id,
            alias=attempt.job.alias,
            training=training,
            settings=spec.evaluation,
            gate=spec.gate,
            seed=spec.seed,
            few_shot_lines=tuple(example.line for example in dataset.solved),
            tools_unparsed=endpoint.tools_unparsed,
            max_tokens=limit,
            how_asked=how_asked(profile),
            evaluation=evaluation,
            edges=tuple(edges),
        )
        with telemetry.span("evaluator.report"):
            html = await asyncio.to_thread(render, report, await self._curves(training))
            document = report.model_dump_json(indent=1).encode()
            kept, page = await when_the_store_answers(
                lambda: self._put_report(attempt, document, html.encode()), asking.say
            )
        return EvalCompleted(
            job_id=attempt.job.job_id,
            model=training.model,
            base=training.base,
            examples=evaluation.examples,
            metric=evaluation.metric,
            scores={**evaluation.scores},
            delta=evaluation.over_base[evaluation.metric],
            passed=evaluation.verdict.passed,
            reasons=evaluation.verdict.reasons,
            report=kept,
            html=page,
            served=training.served,
        )

    async def _put_report(self, attempt: Attempt, document: bytes, page: bytes) -> tuple[Reference, Reference]:
        return (
            await self._objects.put(f"{attempt.prefix}report.json", document),
            await self._objects.put(f"{attempt.prefix}report.html", page),
        )

    async def _edge_prompts(
        self,
        attempt: Attempt,
        endpoint: Endpoint,
        progress: Progress,
        training: TrainingCompleted,
        dataset: Dataset,
        max_tokens: int,
        at_a_time: int,
    ) -> list[EdgeResult]:
        slots = asyncio.Semaphore(at_a_time)
        await progress.begin("edge prompts", 2 * len(EDGE_PROMPTS))

        async def ask(model: str, edge: EdgePrompt) -> Answer:
            async with slots:
                try:
                    prompt = as_prompt(edge, completion=dataset.completion)
                    answer = await endpoint.ask(model, [prompt], max_tokens, patience=EDGE_PATIENCE)
                except (ModelSleeps, KeyRefused):
                    raise
                except (TransientError, ConfigError) as error:
                    answer = Answer(error=str(error))
            metrics.count("edge", [answer])
            await progress.count_answer()
            return answer

        async def both(edge: EdgePrompt) -> EdgeResult:
            base, tuned = await gather_or_cancel([ask(training.base, edge), ask(training.model, edge)])
            return EdgeResult(prompt=edge, base=base, tuned=tuned)

        return await gather_or_cancel([both(edge) for edge in EDGE_PROMPTS])

    async def _profile(self, training: TrainingCompleted) -> BaseProfile | None:
        """What is known of the base; None if an older service trained the model, or nobody could read the base."""
        if training.base_profile is None:
            return None
        return await profiles.load(self._objects, training.base_profile)

    async def _curves(self, training: TrainingCompleted) -> bytes | None:
        reference = training.artifacts.get("curves.png")
        if reference is None:
            return None
        try:
            return await self._objects.read(reference)
        except CorruptObject:  # a missing picture must not fail the evaluation
            return None


class _Asking:
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

    async def answers(self, questions: Questions) -> list[Answer]:
        """The answers of one variant, those of earlier attempts among them."""
        await self._progress.begin(questions.variant, len(questions.prompts))
        about = {"tunestream.model": questions.model, "tunestream.examples": len(questions.prompts)}
        with telemetry.span(f"evaluator.{questions.variant}", attributes=about) as current:
            answers = await self._cache.get(questions)
            missing = [index for index, answer in enumerate(answers) if answer is None]
            current.set_attribute("tunestream.reused", not missing)
            await self._progress.count_reused(len(answers) - len(missing))
            if missing:
                await self._ask(questions, answers, missing)
            return [answer for answer in answers if answer is not None]

    async def _ask(self, questions: Questions, answers: Answers, missing: list[int]) -> None:
        asking = ask_all(self._endpoint, questions, answers, self._at_a_time, self._progress.count_answer)
        try:
            await self._reach.during(asking)
        except BaseException:
            if any(answers[index] for index in missing) and not self._attempt.abandoned:
                with contextlib.suppress(TunestreamError, TimeoutError):
                    async with asyncio.timeout(KEEP_SECONDS):
                        await self._cache.put(questions, answers)
            raise
        finally:
            metrics.count(questions.variant, [answer for index in missing if (answer := answers[index]) is not None])
        await when_the_store_answers(lambda: self._cache.put(questions, answers), self.say)


def _questions(training: TrainingCompleted, dataset: Dataset, limit: Limit) -> list[Questions]:
    """What each variant is asked. Without solved examples there is no few-shot variant."""
    plain = tuple((zero_shot(example),) for example in dataset.examples)
    shown = tuple(few_shot_prompts(example, dataset.solved) for example in dataset.examples)
    base = Questions("base", training.base, plain, limit)
    few_shot = Questions("few_shot", training.base, shown, limit)
    tuned = Questions("tuned", training.model, plain, limit)
    return [base, few_shot, tuned] if dataset.solved else [base, tuned]
