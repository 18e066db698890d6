"""A model behind an OpenAI-compatible endpoint, and the program that serves one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from pydantic import ValidationError
from starlette.responses import JSONResponse, Response

from shared.embeddings.endpoint import EndpointModel
from shared.errors import ConfigError, InputError, TransientError
from shared.settings import EmbeddingsSettings
from tests.support.fakes.embeddings import REFUSED, Words, serving_embeddings
from tests.support.fakes.servers import Server, refusing_port


def model(url: str, **settings: Any) -> EndpointModel:
    return EndpointModel(url, EmbeddingsSettings(url=url, **settings))


async def test_the_program_that_serves_a_model_gives_its_vectors() -> None:
    words = Words()
    texts = ["a b", "c", "ä\u2028\x00" * 40_000]
    async with serving_embeddings(words) as url:
        assert await model(url).vectors(texts) == await words.vectors(texts)
        with pytest.raises(InputError, match="does not read this"):
            await model(url).vectors([REFUSED])


async def test_openais_client_can_ask_it_too() -> None:
    async with serving_embeddings(Words()) as url, AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        found = await client.embeddings.create(model="any", input=["a", "b"])
    [one, other] = [each.embedding for each in found.data]
    assert sum(value * value for value in one) == pytest.approx(1.0) and one != other


@pytest.mark.parametrize("body", [{}, {"input": ""}, {"input": []}, {"input": [1, 2]}, {"input": ["a", ""]}])
async def test_a_wrong_request_is_refused_in_openais_form(body: dict[str, Any]) -> None:
    async with serving_embeddings(Words()) as url, httpx.AsyncClient() as http:
        answer = await http.post(f"{url}/embeddings", json=body)
        healthy = await http.get(f"{url.removesuffix('/v1')}/health/ready")
    assert answer.status_code == 400 and "input" in answer.json()["error"]["param"]
    assert healthy.status_code == 200


class Other:
    """An endpoint whose answer a test decides."""

    def __init__(self, answer: Response) -> None:
        self.asked: list[tuple[dict[str, Any], str | None]] = []
        self.app = FastAPI()

        @self.app.post("/v1/embeddings")
        async def embeddings(request: Request) -> Response:
            self.asked.append((await request.json(), request.headers.get("authorization")))
            return answer


def vectors(*found: list[Any]) -> Response:
    data = [{"index": index, "embedding": vector} for index, vector in enumerate(found)]
    return JSONResponse({"object": "list", "data": data[::-1]})


async def test_it_is_asked_with_the_key_and_the_name_that_are_set() -> None:
    other = Other(vectors([1, 0], [0, 2]))
    async with Server(other.app).running() as server:
        asking = model(f"{server.url}/v1/", model="text-embedding-3-large", api_key="sk-x")
        found = await asking.vectors(["a", "b"])
    assert [list(vector) for vector in found] == [[1.0, 0.0], [0.0, 1.0]]  # by index, of length 1
    body = {"model": "text-embedding-3-large", "input": ["a", "b"], "encoding_format": "float"}
    assert other.asked == [(body, "Bearer sk-x")]


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (JSONResponse({"error": {"message": "too many tokens"}}, 400), InputError, "too many tokens"),
        (JSONResponse({"error": {"message": "wrong key"}}, 401), ConfigError, "API_KEY"),
        (JSONResponse({"detail": "Not Found"}, 404), ConfigError, "TUNESTREAM_EMBEDDINGS__URL"),
        (JSONResponse({"error": {"message": "slow down"}}, 429), TransientError, "slow down"),
        (Response("<html>", 502), TransientError, "502"),
        (Response("<html>"), ConfigError, "as OpenAI's"),
        (JSONResponse([]), ConfigError, "as OpenAI's"),
        (vectors([1, 0]), ConfigError, "no vector"),
        (vectors(["a"], ["b"]), ConfigError, "as OpenAI's"),
        (Response('{"data": [{"index": 0, "embedding": [NaN]}, {"index": 1, "embedding": [1]}]}'), ConfigError, "no "),
    ],
)
async def test_what_else_it_may_answer(answer: Response, kind: type[Exception], told: str) -> None:
    async with Server(Other(answer).app).running() as server:
        with pytest.raises(kind, match=told):
            await model(f"{server.url}/v1").vectors(["a", "b"])


async def test_an_endpoint_that_is_away_is_asked_again_later() -> None:
    with refusing_port() as port, pytest.raises(TransientError, match="does not answer"):
        await model(f"http://127.0.0.1:{port}/v1").vectors(["a"])


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(ValidationError):
        EmbeddingsSettings(url="localhost:8002")
