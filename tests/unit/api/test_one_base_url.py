"""The api hands requests about models to the inference service, so that either address serves the whole OpenAI API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import openai
import pytest

from services.api.app import make_app
from services.api.database import ProjectionDatabase
from services.api.projection import Projection
from services.api.resources.dependencies import Dependencies
from services.inference import app as inference
from shared.http import forward
from shared.http.forward import Forwarder, Other
from shared.service import Context
from shared.settings import Settings
from tests.support.data.keys import add_key, secret
from tests.support.data.trained_models import BASE, TRACEPARENT, add_trained
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.servers import Server, refusing_port
from tests.support.fakes.store import FakeStore
from tests.support.fakes.vllm import FakeVllm

KEY = "a-key"
HELLO = [{"role": "user", "content": "hi"}]
SETTING = "TUNESTREAM_INFERENCE__URL"


@dataclass
class Both:
    """The two services behind real HTTP, over one store. `clients`: of the api's address, and of inference's."""

    vllm: FakeVllm
    objects: FakeStore
    api: Server
    inference: Server
    clients: dict[str, openai.AsyncOpenAI]


async def serve_api(stack: AsyncExitStack, folder: Path, objects: FakeStore, url: str | None = None) -> Server:
    """The api service, which hands requests to `url`; None: to itself."""
    database = ProjectionDatabase(folder / "api.sqlite3")
    stack.push_async_callback(database.close)
    dependencies = Dependencies(database, Projection(database, objects, discover_seconds=10), objects, FakeBus(), "")
    with refusing_port() as port:
        forwarder = Forwarder(Other("inference", url or f"http://127.0.0.1:{port}", SETTING), forward.MODELS)
    stack.push_async_callback(forwarder.close)
    server = await stack.enter_async_context(Server(make_app(dependencies, (KEY,), forwarder=forwarder)).running())
    if url is None:
        forwarder._target = httpx.URL(server.url)
    return server


@pytest.fixture
async def both(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[Both]:
    async with AsyncExitStack() as stack:
        vllm = FakeVllm()
        await stack.enter_async_context(vllm.server.running())
        settings = {
            "model": {"id": BASE},
            "vllm": {"url": vllm.server.url},
            "inference": {"adapter_dir": tmp_path / "adapters", "api_keys": (KEY,)},
        }
        parts = inference.build(Context(Settings.model_validate(settings), objects, FakeBus()))
        assert parts.app is not None and parts.close is not None
        for background in parts.background:
            stack.callback(asyncio.ensure_future(background()).cancel)
        stack.push_async_callback(parts.close)
        served = await stack.enter_async_context(Server(parts.app).running())
        api = await serve_api(stack, tmp_path, objects, served.url)
        clients = {
            name: await stack.enter_async_context(
                openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
            )
            for name, server in (("api", api), ("inference", served))
        }
        yield Both(vllm, objects, api, served, clients)


@pytest.mark.parametrize("address", ["api", "inference"])
async def test_the_official_client_reaches_every_model_at_both_addresses(both: Both, address: str) -> None:
    model, client = await add_trained(both.objects, checkpoint=4), both.clients[address]

    assert [card.id async for card in client.models.list()] == [BASE, model]
    assert (await client.models.retrieve(BASE)).id == BASE
    assert (await client.models.retrieve(model)).id == model
    answer = await client.chat.completions.create(model=model, messages=HELLO)  # type: ignore[arg-type]
    assert (answer.model, answer.choices[0].message.content) == (model, "hello")
    stream = await client.chat.completions.create(model=model, messages=HELLO, stream=True)  # type: ignore[arg-type]
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["one", "two"]
    with pytest.raises(openai.BadRequestError) as needed:
        await client.models.delete(model)
    assert needed.value.code == "job_under_way"
    checkpoint = f"{model}:ckpt-step-4"
    assert (await client.models.delete(checkpoint)).deleted is True
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve(checkpoint)
    with pytest.raises(openai.NotFoundError) as refused:
        await client.chat.completions.create(model="nothing", messages=HELLO)  # type: ignore[arg-type]
    assert refused.value.code == "model_not_found"


async def test_a_stream_arrives_at_the_api_as_it_comes(both: Both) -> None:
    both.vllm.rest.clear()
    stream = await both.clients["api"].chat.completions.create(model=BASE, messages=HELLO, stream=True)  # type: ignore[arg-type]
    first = await anext(stream)
    assert first.choices[0].delta.content == "one"
    both.vllm.rest.set()
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["two"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_client_of_the_api_that_hangs_up_ends_the_generation(both: Both, streamed: bool) -> None:
    """Also while it waits for the first byte."""
    both.vllm.first.clear()
    create = both.clients["api"].chat.completions.create
    asking = asyncio.ensure_future(create(model=BASE, messages=HELLO, stream=streamed))  # type: ignore[call-overload]
    await both.vllm.asking.wait()

    asking.cancel()

    await asyncio.wait_for(both.vllm.hung_up.wait(), 10)
    both.vllm.first.set()


async def test_a_request_has_one_trace_and_its_own_key_at_both_services(both: Both) -> None:
    async with httpx.AsyncClient(base_url=both.api.url) as http:
        sent = {"authorization": f"Bearer {KEY}", "traceparent": TRACEPARENT}
        body = {"model": BASE, "messages": HELLO}
        answer = await http.post("/v1/chat/completions", json=body, headers=sent)
        wrong = await http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer other"})

    trace = TRACEPARENT.split("-")[1]
    assert answer.headers.get_list("x-request-id") == [trace]
    assert both.vllm.headers[-1]["traceparent"].split("-")[1] == trace
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "invalid_api_key")


async def test_a_prompt_may_be_as_large_as_at_the_other_address(both: Both) -> None:
    async with httpx.AsyncClient(base_url=both.api.url, headers={"authorization": f"Bearer {KEY}"}) as http:
        large, body = "x" * 2**21, {"model": BASE, "messages": HELLO}
        answer = await http.post("/v1/chat/completions", json=body | {"user": large})
        too_large = await http.post("/v1/chat/completions", content=b"x" * (33 * 2**20))

    assert answer.status_code == 200
    assert (too_large.status_code, too_large.json()["error"]["code"]) == (413, "body_too_large")


async def test_more_requests_than_can_be_handed_on_are_told_when_to_come_back(
    both: Both, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(forward, "CONNECTIONS", 1)
    monkeypatch.setattr(forward, "TIMEOUT", httpx.Timeout(60, pool=0.05))
    both.vllm.first.clear()
    async with AsyncExitStack() as stack:
        (tmp_path / "narrow").mkdir()
        api = await serve_api(stack, tmp_path / "narrow", both.objects, both.inference.url)
        http = await stack.enter_async_context(
            httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
        )
        body = {"model": BASE, "messages": HELLO}
        first = asyncio.ensure_future(http.post("/v1/chat/completions", json=body))
        await both.vllm.asking.wait()
        second = await http.post("/v1/chat/completions", json=body)
        both.vllm.first.set()
        assert (await first).status_code == 200
    error = second.json()["error"]
    assert (second.status_code, error["code"], second.headers["retry-after"]) == (429, "rate_limit_exceeded", "5")


async def test_an_inference_service_that_is_down_is_named(tmp_path: Path, objects: FakeStore) -> None:
    async with AsyncExitStack() as stack:
        port = stack.enter_context(refusing_port())
        api = await serve_api(stack, tmp_path, objects, f"http://127.0.0.1:{port}")
        async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {KEY}"}) as http:
            answer = await http.get("/v1/models")

    assert (answer.status_code, answer.headers["retry-after"]) == (502, "5")
    assert SETTING in answer.json()["error"]["message"]


async def test_a_service_whose_setting_names_itself_says_so(tmp_path: Path, objects: FakeStore) -> None:
    async with AsyncExitStack() as stack:
        api = await serve_api(stack, tmp_path, objects)
        async with httpx.AsyncClient(base_url=api.url, headers={"authorization": f"Bearer {KEY}"}) as http:
            answer = await http.post("/v1/chat/completions", json={"model": BASE})

    assert (answer.status_code, answer.headers["x-should-retry"]) == (502, "false")
    assert SETTING in answer.json()["error"]["message"]


async def test_a_request_counts_once_at_the_service_that_answers_it(both: Both) -> None:
    """Whichever address it was sent to; a header that a client makes up changes nothing."""
    await add_key(both.objects, "b", limits={"requests_per_minute": 4})
    made_up = {"x-tunestream-forwarded": "1"}
    left: list[int] = []
    async with AsyncExitStack() as stack:
        headers = {"authorization": f"Bearer {secret('b')}"}
        api, inference = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=server.url, headers=headers))
            for server in (both.api, both.inference)
        ]
        for http, more in ((api, {}), (inference, {}), (inference, made_up), (api, {})):
            answer = await http.get("/v1/models", headers=more)
            assert answer.status_code == 200
            assert len(answer.headers.get_list("x-ratelimit-remaining-requests")) == 1
            left.append(int(answer.headers["x-ratelimit-remaining-requests"]))
        refused = [await http.get("/v1/models") for http in (api, inference)]
        files = await api.get("/v1/files")

    assert left == [3, 2, 1, 0]
    assert [answer.status_code for answer in refused] == [429, 429]
    assert all(answer.headers["retry-after-ms"] for answer in refused)
    assert (files.status_code, files.headers["x-ratelimit-remaining-requests"]) == (200, "3")


async def test_what_neither_service_knows_is_an_unknown_url(both: Both) -> None:
    for server in (both.api, both.inference):
        async with httpx.AsyncClient(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}) as http:
            answer = await http.get("/v1/nothing")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_url")
