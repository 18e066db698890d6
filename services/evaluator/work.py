"""One attempt at the stage: ask the base, the base with few-shot prompts and the tuned model, compare them, write the
report."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import httpx

from services.evaluator import metrics
from services.evaluator.answers import AnswerCache
from services.evaluator.asking import Asking, questions_of
from services.evaluator.client import Endpoint, ModelUnknown, connect
from services.evaluator.dataset import Dataset, load
from services.evaluator.domain.answer_length import answer_limit
from services.evaluator.domain.answers import VARIANTS, Answer, Part, Variant
from services.evaluator.domain.asking import how_asked
from services.evaluator.domain.cost import per_thousand
from services.evaluator.domain.gate.secrets import strings_in
from services.evaluator.domain.questions.edge_prompts import EDGE_PROMPTS, EdgeResult, own_prompts
from services.evaluator.domain.questions.general_questions import GENERAL_QUESTIONS
from services.evaluator.domain.remedies import remedies
from services.evaluator.evaluate import Beside, evaluate
from services.evaluator.grading.measure import gradings, measure
from services.evaluator.leaks import Told, leaks_in
from services.evaluator.progress import Progress
from services.evaluator.reach import Reach
from services.evaluator.report import Report, TrialReport, render, render_trial
from services.evaluator.rivals.measure import Rivals
from services.evaluator.scoring.structured import checked
from services.evaluator.scoring.task import task_of
from shared import disk, telemetry
from shared.base import BaseProfile
from shared.base import ledger as profiles
from shared.embeddings.embedder import Embedder
from shared.embeddings.source import make_embedder
from shared.errors import ConfigError, CorruptObject, InputError
from shared.events import EvalCompleted, Event, Interval, Reference, TrainingCompleted
from shared.events.spec import GRADER
from shared.graders.embedded import check_graders
from shared.settings import Settings
from shared.stages.adoption import attempts_of_parents
from shared.stages.stage import Attempt
from shared.store.objects import ObjectStore
from shared.store.patience import when_the_store_answers


class EvaluateWork:
    """One attempt at the stage: takes `training.completed`, returns `eval.completed`."""

    def __init__(
        self,
        objects: ObjectStore,
        settings: Settings,
        clock: Callable[[], float] = time.monotonic,
        *,
        embedder: Embedder | None = None,
    ) -> None:
        self._objects = objects
        self._settings = settings
        self._embedder = embedder or make_embedder(settings.embeddings)
        self._clock = clock

    async def __call__(self, attempt: Attempt) -> Event:
        """Evaluate the model of a training.

        Raises:
            InputError: a row of a split cannot be read.
            TransientError, ConfigError: the endpoint, its model server, that of embeddings or the object store do not
                answer, or a setting is wrong; in one line. Answers that came are kept for the next attempt.
        """
        job = attempt.job
        if job.is_trial:
            return await self._pass(attempt)
        self._check_embeddings(attempt)
        async with connect(self._settings, job.project) as http:
            reach = Reach(http)
            await reach.check()
            with disk.writing(tempfile.gettempdir(), "TMPDIR"):
                return await self._evaluate(attempt, http, reach)

    def _check_embeddings(self, attempt: Attempt) -> None:
        """See before anything is asked that a grader's embeddings can be had. The model is trained by now, so the job
        waits for them, and does not fail."""
        try:
            check_graders(attempt.job.spec.evaluation, self._settings.embeddings)
        except InputError as error:
            raise ConfigError(error.message) from None

    async def _pass(self, attempt: Attempt) -> Event:
        """Leave a trial of a sweep as it is: nothing is asked, and its alias does not move."""
        training = TrainingCompleted.model_validate(attempt.request)
        sweep = attempt.job.origin.sweep or ""
        reason = (
            f"A trial of {sweep}, of which only the best is evaluated. The model can be called by its id; "
            f"`tunestream retry {attempt.job.job_id} --from evaluator` evaluates it."
        )
        trial = TrialReport(job_id=attempt.job.job_id, sweep=sweep, training=training, reason=reason)
        document = trial.model_dump_json(indent=1).encode()
        html = await asyncio.to_thread(render_trial, trial, await self._curves(training))
        kept, page = await when_the_store_answers(
            lambda: self._put_report(attempt, document, html.encode()),
            lambda why: attempt.progress("waiting", f"the report waits to be stored: {why}"),
        )
        loss = {} if training.valid_loss is None else {"valid_loss": training.valid_loss}
        return EvalCompleted(
            job_id=attempt.job.job_id,
            model=training.model,
            base=training.base,
            examples=0,
            metric="valid_loss",
            scores={"tuned": loss},
            delta=Interval(mean=0.0, low=0.0, high=0.0, confidence=attempt.job.spec.gate.confidence),
            passed=False,
            reasons=(reason,),
            report=kept,
            html=page,
            served=training.served,
        )

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
        endpoint = Endpoint(http, patience=self._settings.evaluator.timeout_seconds)
        champion = await self._champion(attempt, endpoint, training) if dataset.examples else None
        general = self._probes(attempt, dataset)
        asked = questions_of(training, dataset, limit, champion=champion, general=general)
        total = sum(len(questions.prompts) for questions in asked)
        total += 2 * (len(EDGE_PROMPTS) + len(spec.evaluation.prompts))
        rivals = Rivals(spec.evaluation.rivals, self._settings.evaluator, training.model, dataset, limit)
        total += rivals.questions
        total += gradings(attempt, len(dataset.examples), sum(one.variant in VARIANTS for one in asked))
        progress = Progress(attempt, total, self._clock)
        parents = await attempts_of_parents(self._objects, attempt.job, "evaluator")
        wanted = spec.evaluation.concurrency
        at_a_time = await endpoint.room(training.base) if wanted == "auto" else wanted
        cache = AnswerCache(self._objects, attempt, parents)
        asking = Asking(attempt, endpoint, reach, cache, progress, at_a_time)
        answers: dict[Part, list[Answer]] = {}
        trouble = ""
        for questions in asked:
            try:
                answers[questions.variant] = await asking.answers(questions)
            except ModelUnknown:
                if questions.variant != "champion":
                    raise
                trouble = "the endpoint does not serve it"  # such as one of another base
        if "champion" in answers and all(answer.error for answer in answers["champion"]):
            trouble = "the endpoint refused every request to it"
            del answers["champion"]
        compared: dict[Variant, list[Answer]] = {
            variant: answers[variant] for variant in VARIANTS if variant in answers
        }
        await rivals.ask(asking, http)
        prompts = (*EDGE_PROMPTS, *own_prompts(spec.evaluation.prompts))
        edges = await asking.unscored(prompts, training, dataset, limit.tokens)
        to_grade: dict[Part, list[Answer]] = dict(compared.items()) | rivals.answers
        graded = await measure(
            attempt, self._objects, self._settings, progress, dataset.examples, to_grade, self._embedder
        )
        leaks = await leaks_in(self._objects, training.train, _told(dataset, answers, edges))
        with telemetry.span("evaluator.score"):
            evaluation = await asyncio.to_thread(
                evaluate,
                dataset.examples,
                compared,
                labels=dataset.labels,
                gate=spec.gate,
                seed=spec.seed,
                schema=spec.evaluation.json_schema,
                beside=Beside(
                    champion=champion,
                    champion_trouble=trouble,
                    general_base=answers.get("general_base", ()),
                    general_tuned=answers.get("general_tuned", ()),
                    leaks=leaks,
                ),
                grades=graded.grades,
                graders=[f"{GRADER}{one['name']}" for one in spec.evaluation.graders],
                room=limit.tokens + limit.thinking,
                test_wanted=spec.splits.test > 0,
            )
        metrics.gate.labels(str(evaluation.verdict.passed).lower()).inc()
        report = Report(
            rivals=await asyncio.to_thread(rivals.compared, evaluation, spec, graded.grades),
            job_id=attempt.job.job_id,
            alias=attempt.job.alias,
            training=training,
            settings=spec.evaluation,
            gate=spec.gate,
            seed=spec.seed,
            grading=graded.grading,
            pairwise=graded.pairwise,
            prices={
                variant: price
                for variant in VARIANTS
                if (price := per_thousand(spec.evaluation.own_price, answers.get(variant, ()), at_a_time)) is not None
            },
            few_shot_lines=tuple(example.line for example in dataset.solved),
            tools_unparsed=endpoint.tools_unparsed,
            max_tokens=limit,
            how_asked=how_asked(profile),
            evaluation=evaluation,
            edges=tuple(edges[: len(EDGE_PROMPTS)]),
            own=tuple(edges[len(EDGE_PROMPTS) :]),
            remedies=remedies(training),
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

    async def _champion(self, attempt: Attempt, endpoint: Endpoint, training: TrainingCompleted) -> str | None:
        """The model that the alias names, if it is another one than those that are compared anyway."""
        if attempt.job.spec.gate.checks.champion == "off":
            return None
        named = await endpoint.champion(attempt.job.alias)
        return None if named in (training.base, training.model) else named

    def _probes(self, attempt: Attempt, dataset: Dataset) -> bool:
        """Whether the general questions are asked."""
        wanted = attempt.job.spec.gate.checks.forgetting
        if wanted == "auto":
            return bool(dataset.examples) and task_of(dataset.examples, dataset.labels).free_text
        return bool(dataset.examples) and wanted != "off"

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


def _told(dataset: Dataset, answers: Mapping[Part, Sequence[Answer]], edges: Sequence[EdgeResult]) -> Iterator[Told]:
    """Every answer of the tuned model, with what it may hold: what stands in its prompt, in its reference, or in the
    answer of the base, which knows nothing of the training."""
    for example, base, tuned in zip(dataset.examples, answers["base"], answers["tuned"], strict=True):
        asked = [example.prompt or "", *strings_in(list(example.messages))]
        yield Told(f"test line {example.line}", tuned.text, "\n".join([*asked, example.reference, base.text]))
    general = zip(GENERAL_QUESTIONS, answers.get("general_base", ()), answers.get("general_tuned", ()), strict=False)
    for question, base, tuned in general:
        yield Told(f"the general question “{question.text}”", tuned.text, f"{question.text}\n{base.text}")
    for edge in edges:
        yield Told(f"the edge prompt “{edge.prompt.name}”", edge.tuned.text, f"{edge.prompt.text}\n{edge.base.text}")
