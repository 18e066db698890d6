"""An outage of the endpoint or the store in the middle of an evaluation: it leaves its slot, says why, and loses no
answer."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import JSONResponse, Response

from services.evaluator import reach
from services.evaluator.client import ModelSleeps
from services.evaluator.reach import Reach
from services.evaluator.work import EvaluateWork
from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.events import EvalCompleted, JobProgress
from shared.retry import Backoff
from shared.settings import EvaluatorSettings, InferenceSettings, Settings
from shared.stages.stage import Attempt
from shared.store import patience
from tests.support.data.jobs import FakeClaim, make_attempt
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.evaluator.test_work import BASE, CITIES, chat_rows, job, models, request_for


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.evaluator.client.BACKOFF", Backoff(0.001, 0.002))
    monkeypatch.setattr("services.evaluator.client.PATIENCE", 0.01)
    monkeypatch.setattr(patience, "PAUSES", Backoff(0.001, 0.002))


class Evaluation:
    """The evaluation of one model, attempt by attempt."""

    def __init__(self, objects: FakeStore, request: dict[str, Any]) -> None:
        self.objects = objects
        self.request = request
        self.number = 0
        self.claim = FakeClaim()
        self.attempt: Attempt
        self.progress: list[JobProgress] = []

    async def run(self, model: FakeModel) -> EvalCompleted:
        self.number += 1
        self.attempt, self.progress = make_attempt(
            job(evaluation={"concurrency": 2}), "evaluator", number=self.number, request=self.request, claim=self.claim
        )
        async with serve(model) as url:
            settings = Settings(inference=InferenceSettings(url=url), evaluator=EvaluatorSettings(timeout_seconds=20.0))
            event = await EvaluateWork(self.objects, settings)(self.attempt)
        assert isinstance(event, EvalCompleted)
        return event

    @property
    def said(self) -> list[str]:
        return [event.message for event in self.progress if event.state == "waiting"]


@pytest.fixture
async def evaluation(objects: FakeStore) -> Evaluation:
    return Evaluation(objects, await request_for(objects, chat_rows(CITIES), chat_rows(CITIES[:4])))


async def test_an_endpoint_that_goes_down_costs_no_answer_that_came(evaluation: Evaluation) -> None:
    attempts = []
    for answers in (7, 4, 11):
        attempts.append(FakeModel(models(), answers=answers))
        with pytest.raises(TransientError, match=r"TUNESTREAM_INFERENCE__URL\) answers 503"):
            await evaluation.run(attempts[-1])
    last = FakeModel(models())
    event = await evaluation.run(last)

    answered = 7 + 4 + 11 + len(last.requests)
    assert event.passed and event.examples == 12
    assert answered <= 12 * 3 + 40 * 2 + 16 * 2 + 2 * 3  # at most the requests under way were asked for twice
    report = json.loads(await evaluation.objects.read(event.report))
    assert [row["answers"]["base"]["answer"]["text"] for row in report["evaluation"]["rows"]] == ["I do not know."] * 12


async def test_progress_counts_what_earlier_attempts_got(evaluation: Evaluation) -> None:
    with pytest.raises(TransientError):
        await evaluation.run(FakeModel(models(), answers=7))
    await evaluation.run(FakeModel(models()))

    assert evaluation.progress[0].message == "base: 0 of 12 answers"
    assert evaluation.progress[1].message.endswith("of 12 answers") and (evaluation.progress[1].step or 0) >= 5
    assert evaluation.progress[-1].step == evaluation.progress[-1].total_steps


async def test_a_model_that_falls_asleep_is_left_and_asked_again_later(evaluation: Evaluation) -> None:
    asleep = FakeModel(models(), sleeps=2)
    with pytest.raises(ModelSleeps):
        await evaluation.run(asleep)
    assert len(asleep.requests) <= 2

    assert (await evaluation.run(FakeModel(models()))).passed


async def test_an_outage_of_the_store_costs_no_answer(objects: FakeStore, evaluation: Evaluation) -> None:
    model = FakeModel(models())

    def last(text: str) -> str:
        objects.available = CITIES[-1] not in text and objects.available
        return "I do not know."

    model.models[BASE] = last
    running = asyncio.create_task(evaluation.run(model))
    await until(lambda: evaluation.said, "the job says what it waits for")
    assert evaluation.said[0].startswith("what was measured waits to be stored: the object store does not answer")
    model.models[BASE] = lambda text: "I do not know."
    objects.available = True
    event = await running

    assert event.passed
    assert (evaluation.number, len(model.requests)) == (1, 12 * 3 + 40 * 2 + 16 * 2)


class Stuck(FakeModel):
    """Answers seven questions, and then nothing until the client has gone."""

    async def _answer(self, request: Request, *about: Any) -> Response:
        if len(self.requests) < 7:
            return await super()._answer(request, *about)
        self.problems = {}
        while not await request.is_disconnected():
            await asyncio.sleep(0.01)
        return JSONResponse({}, 500)


@pytest.mark.parametrize("abandoned", [False, True])
async def test_a_service_that_stops_keeps_the_answers_and_an_owner_that_lost_the_job_writes_nothing(
    objects: FakeStore, evaluation: Evaluation, abandoned: bool
) -> None:
    before = set(objects.held)
    evaluation.claim.abandoned = abandoned
    model = Stuck(models())
    running = asyncio.create_task(evaluation.run(model))
    await until(lambda: model.problems is not None, "seven answers came")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    new = set(objects.held) - before
    assert new == (set() if abandoned else {f"{evaluation.attempt.prefix}answers-base-part.jsonl"})


async def test_hundreds_of_attempts_that_wrote_nothing_cost_no_reads(
    objects: FakeStore, evaluation: Evaluation
) -> None:
    evaluation.number = 500
    await evaluation.run(FakeModel(models()))
    assert len(objects.calls) < 30


async def test_a_full_disk_is_waited_for(evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch) -> None:
    async def download(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "a test said so")

    monkeypatch.setattr(FakeStore, "download", download)
    with pytest.raises(TransientError, match=r"\(TMPDIR\) is full"):
        await evaluation.run(FakeModel(models()))


async def test_a_store_that_is_away_at_the_beginning_is_waited_for(objects: FakeStore, evaluation: Evaluation) -> None:
    objects.available = False
    with pytest.raises(StoreUnavailable):
        await evaluation.run(FakeModel(models()))


async def test_a_refused_key_is_a_setting_also_where_only_edge_prompts_are_asked(objects: FakeStore) -> None:
    evaluation = Evaluation(objects, await request_for(objects, None, chat_rows(CITIES)))
    with pytest.raises(ConfigError, match="TUNESTREAM_EVALUATOR__API_KEY"):
        await evaluation.run(FakeModel(models(), failures=[(401, {})] * 40))


class DownForEdges(FakeModel):
    """Goes down after the last general question, and with it what it says of its model server."""

    async def _answer(self, request: Request, *about: Any) -> Response:
        if len(self.requests) >= 12 * 3 + 40 * 2:
            self.always_down, self.problems = True, {"vllm": "vLLM does not answer yet"}
        return await super()._answer(request, *about)


async def test_an_outage_during_all_edge_prompts_is_not_taken_for_an_answer(
    evaluation: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.evaluator.asking.EDGE_PATIENCE", 0.01)
    with pytest.raises(TransientError, match="vLLM does not answer yet"):
        await evaluation.run(DownForEdges(models()))
    last = FakeModel(models())
    assert (await evaluation.run(last)).passed
    assert len(last.requests) == 16 * 2


# --- how the endpoint is -------------------------------------------------------------------------------------------


async def test_an_endpoint_whose_vllm_is_down_is_left_before_anything_is_done(
    objects: FakeStore, evaluation: Evaluation
) -> None:
    before = list(objects.calls)
    model = FakeModel(models(), problems={"vllm": "vLLM does not answer yet", "bus": "not connected"})
    with pytest.raises(TransientError, match=r"TUNESTREAM_INFERENCE__URL\) is up, but vLLM does not answer yet$"):
        await evaluation.run(model)
    assert (model.requests, objects.calls) == ([], before)


async def test_other_problems_of_the_endpoint_are_none_of_ours(evaluation: Evaluation) -> None:
    assert (await evaluation.run(FakeModel(models(), problems={"bus": "not connected"}))).passed


async def test_nobody_at_the_address_is_said_at_once(evaluation: Evaluation) -> None:
    attempt, _ = make_attempt(job(), "evaluator", request=evaluation.request)
    work = EvaluateWork(evaluation.objects, Settings(inference=InferenceSettings(url="http://127.0.0.1:9")))
    with pytest.raises(TransientError, match=r"^the endpoint at http://127.0.0.1:9/v1/ .* does not answer: Connect"):
        await work(attempt)


class Health:
    """An endpoint whose health a test sets; time passes only while somebody waits for it."""

    def __init__(self) -> None:
        self.well: Callable[[float], bool] = lambda at: True
        self.now = 0.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        if self.well(self.now):
            return httpx.Response(200)
        raise httpx.ConnectTimeout("a black hole")

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def reach(self, http: httpx.AsyncClient) -> Reach:
        return Reach(http, timer=lambda: self.now, sleep=self.sleep)

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=httpx.MockTransport(self.answer), base_url="http://x/v1")


async def test_requests_that_hang_on_a_dead_endpoint_are_left_within_seconds() -> None:
    health = Health()
    health.well = lambda at: at < 60
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with health.client() as http:
        with pytest.raises(TransientError, match="does not answer: ConnectTimeout"):
            await health.reach(http).during(hangs())
    assert ended.is_set()
    assert 60 + reach.PATIENCE <= health.now <= 60 + reach.PATIENCE + 2 * reach.EVERY_SECONDS


async def test_a_short_silence_ends_nothing() -> None:
    health = Health()
    health.well = lambda at: at % 20 > 5

    async def work() -> str:
        await until(lambda: health.now > 1000, "much time has passed")
        return "done"

    async with health.client() as http:
        assert await health.reach(http).during(work()) == "done"


async def test_an_error_of_the_work_is_the_error() -> None:
    async def fails() -> None:
        raise ModelSleeps("a training")

    async with Health().client() as http:
        with pytest.raises(ModelSleeps):
            await Health().reach(http).during(fails())
