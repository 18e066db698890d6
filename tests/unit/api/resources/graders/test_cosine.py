"""`cosine`, by an endpoint for embeddings: in graders/validate and graders/run, and where a job or a sweep names it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, BadRequestError

from services.api.app import make_app
from services.api.resources.dependencies import Dependencies
from shared.settings import EmbeddingsSettings
from tests.support.fakes.embeddings import REFUSED, Words, serving_embeddings, without_embeddings
from tests.support.fakes.servers import Server, refusing_port
from tests.unit.api.conftest import URL, Api
from tests.unit.api.resources.graders.test_validate import MULTI, STRING, TEXT

COSINE: dict[str, Any] = TEXT | {"evaluation_metric": "cosine"}
BOTH = MULTI | {"graders": {"exact": STRING, "alike": COSINE}}
ITEM = {"answer": "the parcel arrives tomorrow"}

Serving = Callable[[EmbeddingsSettings], AbstractAsyncContextManager[AsyncOpenAI]]


@pytest.fixture
def serving(api: Api) -> Serving:
    """The api with these settings, as OpenAI's client."""

    @asynccontextmanager
    async def serve(settings: EmbeddingsSettings) -> AsyncIterator[AsyncOpenAI]:
        dependencies = Dependencies(api.database, api.projection, api.objects, api.bus, URL, embeddings=settings)
        async with (
            Server(make_app(dependencies, ())).running() as server,
            AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        ):
            yield client

    return serve


async def reward(client: AsyncOpenAI, grader: Any, sample: str, item: Any = ITEM) -> float:
    found = await client.fine_tuning.alpha.graders.run(grader=grader, model_sample=sample, item=item)
    return found.reward


async def test_the_reward_is_the_similarity_of_the_embeddings(serving: Serving) -> None:
    async with serving_embeddings(Words()) as url, serving(EmbeddingsSettings(url=url)) as client:
        assert await reward(client, COSINE, "tomorrow the parcel arrives") == pytest.approx(1.0)
        assert await reward(client, COSINE, "the parcel is lost") == pytest.approx(0.5)
        assert await reward(client, COSINE, "no idea") == 0.0
        assert await reward(client, BOTH, "the parcel is lost") == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("sample", "answer", "score"), [("", "", 1.0), ("x", "", 0.0), (" ", "x", 0.0), ("x", "x", 1.0)]
)
async def test_equal_and_empty_texts_have_a_score_also_while_the_model_is_away(
    serving: Serving, sample: str, answer: str, score: float
) -> None:
    with refusing_port() as port:
        async with serving(EmbeddingsSettings(url=f"http://127.0.0.1:{port}/v1")) as client:
            assert await reward(client, COSINE, sample, {"answer": answer}) == score


async def test_validate_takes_it_where_there_are_embeddings(serving: Serving) -> None:
    async with serving(EmbeddingsSettings(url="http://embeddings.test/v1")) as client:
        for grader in (COSINE, BOTH):
            found = await client.fine_tuning.alpha.graders.validate(grader=grader)  # type: ignore[arg-type]
            assert found.grader is not None


async def test_a_model_that_is_away_is_503_so_that_the_client_tries_again(api: Api, serving: Serving) -> None:
    body = {"grader": COSINE, "model_sample": "x", "item": ITEM}
    with refusing_port() as port:
        async with serving(EmbeddingsSettings(url=f"http://127.0.0.1:{port}/v1")) as client:
            url = f"{client.base_url}fine_tuning/alpha/graders/run"
            async with httpx.AsyncClient() as http:
                answer = await http.post(url, json=body)
    assert answer.status_code == 503 and "retry-after" in answer.headers
    assert "does not answer" in answer.json()["error"]["message"]


async def test_texts_that_are_too_long_are_refused(serving: Serving) -> None:
    async with serving_embeddings(Words()) as url, serving(EmbeddingsSettings(url=url)) as client:
        for sample, told in ((REFUSED, "does not read this"), ("x" * 40_000, "at most 32,768 characters")):
            with pytest.raises(BadRequestError, match=told) as caught:
                await reward(client, COSINE, sample)
            assert (caught.value.code, caught.value.param) == ("text_too_long", "grader")


async def test_without_embeddings_it_is_refused_with_the_remedy(
    api: Api, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_embeddings(monkeypatch)
    paths = {"graders/validate": {}, "graders/run": {"model_sample": "x", "item": ITEM}}
    async with serving(EmbeddingsSettings()) as client, httpx.AsyncClient() as http:
        for path, more in paths.items():
            for grader, field in ((COSINE, "grader"), (BOTH, "grader.graders.alike")):
                url = f"{client.base_url}fine_tuning/alpha/{path}"
                answer = await http.post(url, json={"grader": grader, **more})
                error = answer.json()["error"]
                assert (answer.status_code, error["code"]) == (400, "unsupported_grader")
                assert error["param"] == f"{field}.evaluation_metric"
                assert "pip install 'tunestream[embeddings]'" in error["message"]
                assert "TUNESTREAM_EMBEDDINGS__URL" in error["message"]


async def test_so_is_a_job_or_a_sweep_that_names_it_before_anything_is_trained(
    api: Api, serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_embeddings(monkeypatch)
    grader = COSINE | {"reference": "{{item.reference}}"}
    evaluation = {"evaluation": {"graders": [STRING | {"reference": "{{item.reference}}"}, grader]}}
    async with serving(EmbeddingsSettings()) as client, httpx.AsyncClient() as http:
        file = await client.files.create(
            file=("rows.jsonl", b'{"prompt": "a", "completion": "b"}\n'), purpose="fine-tune"
        )
        job = await http.post(
            f"{client.base_url}fine_tuning/jobs", json={"model": "base", "training_file": file.id} | evaluation
        )
        sweep = await http.post(
            f"{str(client.base_url).removesuffix('v1/')}sweeps", json={"training_file": file.id, "spec": evaluation}
        )
    for answer, field in ((job, "evaluation"), (sweep, "spec.evaluation")):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unsupported_grader"), answer.text
        assert error["param"] == f"{field}.graders[1].evaluation_metric"
    assert not [key for key in api.objects.held if key.startswith(("ingest/asked", "sweeps/"))]
