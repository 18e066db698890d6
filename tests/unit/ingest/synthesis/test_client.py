"""What the answers of a server mean: again later, not this one, or not at all."""

from __future__ import annotations

import email.utils
import time
from typing import Any

import pytest
from fastapi import FastAPI, Request, Response

from services.ingest.domain.synthesis.spec import Endpoint
from services.ingest.synthesis.client import ChatClient, NotBegun, Reply, RequestRefused, Unavailable
from shared.errors import InputError
from tests.support.fakes.servers import Server, refusing_port

BODY = {"model": "m", "messages": [{"role": "user", "content": "a"}], "max_tokens": 5, "temperature": 0.5}
GOOD = '{"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}'  # noqa: E501


class Says:
    """A server that gives these answers, one after the other: status, body, headers."""

    def __init__(self, *answers: tuple[int, str, dict[str, str]]) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/v1/chat/completions")
        async def chat(request: Request) -> Response:
            self.bodies.append(await request.json())
            self.headers.append(dict(request.headers))
            status, body, headers = self.answers.pop(0)
            return Response(body, status, headers, "application/json")

        return app


async def complete(says: Says, key: str | None = "secret") -> Reply:
    async with Server(says.app()).running() as server:
        endpoint = Endpoint(base_url=f"{server.url}/v1", key="STRONG_KEY" if key else None)
        async with ChatClient(endpoint, key, 5.0) as client:
            return await client.complete(BODY)


def error(message: str, code: str = "x") -> str:
    return f'{{"error": {{"message": "{message}", "code": "{code}", "type": "t"}}}}'


async def test_a_completion_and_its_tokens() -> None:
    says = Says((200, GOOD, {}))
    assert await complete(says) == Reply("hi", "stop", 3, 1)
    assert says.headers[0]["authorization"] == "Bearer secret"
    assert says.bodies == [BODY]


async def test_a_server_may_not_say_how_many_tokens_it_used() -> None:
    body = '{"choices": [{"message": {"content": null}}]}'
    assert await complete(Says((200, body, {}))) == Reply("", None, None, None)


@pytest.mark.parametrize(
    ("status", "spent"), [(429, False), (503, False), (529, False), (500, True), (502, True), (504, True), (408, True)]
)
async def test_a_busy_or_broken_server_is_asked_again(status: int, spent: bool) -> None:
    with pytest.raises(Unavailable) as raised:
        await complete(Says((status, error("later"), {})))
    assert (raised.value.spent, raised.value.wait) == (spent, None)


async def test_retry_after_is_seconds_milliseconds_or_a_date() -> None:
    date = email.utils.formatdate(time.time() + 100, usegmt=True)
    for headers, wait in (
        ({"retry-after": "7"}, 7.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": date}, 100.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
    ):
        with pytest.raises(Unavailable) as raised:
            await complete(Says((429, error("later"), headers)))
        assert raised.value.wait == (None if wait is None else pytest.approx(wait, abs=3))


async def test_a_server_that_is_not_there_has_cost_nothing() -> None:
    with refusing_port() as port:
        async with ChatClient(Endpoint(base_url=f"http://127.0.0.1:{port}/v1"), None, 5.0) as client:
            with pytest.raises(Unavailable) as raised:
                await client.complete(BODY)
    assert not raised.value.spent


async def test_a_connection_that_breaks_may_have_cost_something() -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def chat() -> Response:
        server.break_connections()
        return Response(GOOD)

    async with Server(app).running() as server:
        client = ChatClient(Endpoint(base_url=f"{server.url}/v1"), None, 5.0)
        with pytest.raises(Unavailable) as raised:
            await client.complete(BODY)
    assert raised.value.spent


@pytest.mark.parametrize(
    ("answer", "param", "said"),
    [
        ((401, error("Incorrect API key provided"), {}), "endpoint.key", "STRONG_KEY (Incorrect API key provided)"),
        ((404, error("no such model"), {}), "endpoint", "does not know the model m (no such model); correct `model`"),
        ((429, error("You exceeded your quota", "insufficient_quota"), {}), "endpoint", "gives no credit"),
        ((402, error("Payment required"), {}), "endpoint", "gives no credit"),
    ],
)  # fmt: skip
async def test_what_no_second_try_would_mend(answer: tuple[int, str, dict[str, str]], param: str, said: str) -> None:
    with pytest.raises(NotBegun) as raised:
        await complete(Says(answer))
    assert raised.value.reason.param == param
    assert said in raised.value.reason.message
    assert "secret" not in raised.value.reason.message


async def test_a_request_without_a_key_is_told_to_name_one() -> None:
    with pytest.raises(NotBegun, match="refuses a request without a key; name its variable"):
        await complete(Says((401, error("no key"), {})), key=None)


@pytest.mark.parametrize(
    "body", ["<html>", "{}", '{"choices": []}', "[]", '{"choices": [{"message": {"content": 5}}]}']
)
async def test_a_server_that_speaks_something_else_is_named(body: str) -> None:
    with pytest.raises(InputError, match="not that of an OpenAI-compatible server"):
        await complete(Says((200, body, {})))


async def test_a_request_that_is_refused_says_why_and_whether_by_a_filter() -> None:
    for message, code, filtered in (("too long", "x", False), ("no", "content_filter", True)):
        with pytest.raises(RequestRefused, match=f"400: {message}") as raised:
            await complete(Says((400, error(message, code), {})))
        assert raised.value.filtered is filtered


async def test_parameters_that_reasoning_models_refuse_are_renamed_or_left_out() -> None:
    says = Says(
        (400, error("Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."), {}),
        (400, error("Unsupported value: 'temperature' does not support 0.5"), {}),
        (200, GOOD, {}),
    )
    assert (await complete(says)).text == "hi"
    assert says.bodies[-1] == {"model": "m", "messages": BODY["messages"], "max_completion_tokens": 5}
