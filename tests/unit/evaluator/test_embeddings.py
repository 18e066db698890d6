"""A grader that compares embeddings, as a metric and in the gate."""

from __future__ import annotations

import pytest

from services.evaluator.work import EvaluateWork
from shared.errors import ConfigError, TransientError
from shared.events import EvalCompleted
from shared.settings import EmbeddingsSettings, InferenceSettings, Settings
from tests.support.data.jobs import make_attempt
from tests.support.fakes.embeddings import Words, serving_embeddings, without_embeddings
from tests.support.fakes.language_model import FakeModel, serve
from tests.support.fakes.servers import refusing_port
from tests.support.fakes.store import FakeStore
from tests.unit.evaluator.test_grading import ALIKE
from tests.unit.evaluator.test_work import CITIES, chat_rows, house_style, job, models, question, request_for

COSINE = ALIKE | {"name": "meaning", "evaluation_metric": "cosine"}
GATED = {"evaluation": {"graders": [COSINE]}, "gate": {"metric": "grader:meaning"}}


async def evaluated(
    embeddings: EmbeddingsSettings, model: FakeModel, objects: FakeStore | None = None, number: int = 1
) -> EvalCompleted:
    objects = objects or FakeStore()
    request = await request_for(objects, chat_rows(CITIES), chat_rows(CITIES))
    attempt, _ = make_attempt(job(**GATED), "evaluator", number=number, request=request)
    async with serve(model) as url:
        settings = Settings(inference=InferenceSettings(url=url), embeddings=embeddings)
        event = await EvaluateWork(objects, settings)(attempt)
    assert isinstance(event, EvalCompleted)
    return event


async def test_the_gate_decides_by_the_meaning_of_answers() -> None:
    words = Words()

    def reordered(text: str) -> str:
        return " ".join(reversed(house_style(question(text)).split()))

    async with serving_embeddings(words) as url:
        event = await evaluated(EmbeddingsSettings(url=url), FakeModel(models(tuned=reordered)))
    assert (event.metric, event.passed) == ("grader:meaning", True)
    assert event.scores["tuned"]["grader:meaning"] == pytest.approx(1.0)
    assert event.scores["base"]["grader:meaning"] < 0.2
    assert len(words.batches) < 12 * 2  # of 12 rows with three answers each


async def test_while_the_model_is_away_the_job_waits_and_keeps_its_answers() -> None:
    objects, model = FakeStore(), FakeModel(models())
    with refusing_port() as port, pytest.raises(TransientError, match="does not answer"):
        await evaluated(EmbeddingsSettings(url=f"http://127.0.0.1:{port}/v1"), model, objects)
    asked = len(model.requests)
    async with serving_embeddings(Words()) as url:
        event = await evaluated(EmbeddingsSettings(url=url), model, objects, number=2)
    assert event.passed
    assert len(model.requests) == asked + 16 * 2  # only the edge prompts are asked again


async def test_without_embeddings_nothing_is_asked_and_the_job_waits_for_the_operator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_embeddings(monkeypatch)
    model = FakeModel(models())
    with pytest.raises(ConfigError, match=r"pip install 'tunestream\[embeddings\]'"):
        await evaluated(EmbeddingsSettings(), model)
    assert model.requests == []
