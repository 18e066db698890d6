"""Generation through the gateway, as a client of the OpenAI API meets it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from tests.support.data.trained_models import BASE, TRACEPARENT, add_trained
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service

MESSAGES: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hi"}]
TRACE_ID = TRACEPARENT.split("-")[1]


async def test_the_base_answers_under_its_own_name(service: ServiceUnderTest) -> None:
    answer = await service.client.chat.completions.create(model=BASE, messages=MESSAGES)

    assert answer.model == BASE
    assert answer.choices[0].message.content == "hello"


async def test_a_stream_is_passed_on_chunk_by_chunk(service: ServiceUnderTest) -> None:
    service.vllm.rest.clear()  # vLLM holds back everything after the first chunk

    body = {"model": BASE, "messages": MESSAGES, "stream": True}
    async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_raw()
        first = await anext(chunks)
        assert b"one" in first and b"two" not in first
        assert response.headers["content-type"].startswith("text/event-stream")

        service.vllm.rest.set()
        rest = b"".join([chunk async for chunk in chunks])

    assert b"two" in rest and rest.endswith(b"data: [DONE]\n\n")


async def test_hanging_up_in_the_middle_of_a_stream_hangs_up_on_vllm(service: ServiceUnderTest) -> None:
    service.vllm.rest.clear()

    body = {"model": BASE, "messages": MESSAGES, "stream": True}
    async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
        await anext(response.aiter_raw())

    await asyncio.wait_for(service.vllm.hung_up.wait(), 5)


@pytest.mark.parametrize("stream", [False, True])
async def test_hanging_up_before_the_first_byte_hangs_up_on_vllm(service: ServiceUnderTest, stream: bool) -> None:
    service.vllm.first.clear()
    asking = asyncio.create_task(service.chat(BASE, stream=stream))
    await service.vllm.asking.wait()

    asking.cancel()

    await asyncio.wait_for(service.vllm.hung_up.wait(), 5)


async def test_a_request_whose_connection_breaks_before_the_first_byte_is_sent_again(service: ServiceUnderTest) -> None:
    service.vllm.breaks = 1

    answer = await service.chat(BASE)

    assert answer.status_code == 200
    assert len(service.vllm.asked) == 2


async def test_a_request_that_breaks_vllm_twice_is_given_up(service: ServiceUnderTest) -> None:
    service.vllm.breaks = 2

    answer = await service.chat(BASE)

    assert answer.status_code == 502
    assert answer.json()["error"]["code"] == "bad_gateway"
    assert int(answer.headers["retry-after"]) > 0


async def test_a_stream_that_breaks_midway_ends_in_an_error_not_in_silence(service: ServiceUnderTest) -> None:
    service.vllm.breaks_midway = True
    stream = await service.client.chat.completions.create(model=BASE, messages=MESSAGES, stream=True)
    texts = []

    with pytest.raises(openai.APIError, match="broke in the middle"):
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)

    assert texts == ["one"]


async def test_while_vllm_is_down_the_client_is_told_when_to_come_back(service: ServiceUnderTest) -> None:
    assert (await service.chat(BASE)).status_code == 200
    service.vllm.healthy = False
    service.vllm.breaks = 1

    answer = await service.chat(BASE)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["type"] == "server_error"


async def test_requests_wait_for_a_vllm_that_comes_back_in_time(service: ServiceUnderTest) -> None:
    """Neither of the two is known to be why it died."""
    assert (await service.chat(BASE)).status_code == 200
    service.vllm.first.clear()
    asking = [asyncio.create_task(service.chat(BASE, seed=seed)) for seed in range(2)]
    await until(lambda: len(service.vllm.asked) == 3, "vLLM works on both")
    service.vllm.healthy = False
    service.vllm.server.break_connections()
    await service.vllm.found_ill.wait()

    service.vllm.healthy = True
    service.vllm.first.set()

    assert [(await one).status_code for one in asking] == [200, 200]


async def test_a_server_error_of_a_dying_vllm_is_not_the_answer(service: ServiceUnderTest) -> None:
    """An engine that dies answers 500 first and is gone a moment later. Another generation is under way, which may be
    the cause."""
    assert (await service.chat(BASE)).status_code == 200
    service.vllm.rest.clear()
    body = {"model": BASE, "messages": MESSAGES, "stream": True}
    async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_raw()  # held, because the connection is closed with it
        await anext(chunks)
        service.vllm.error = (500, {"error": {"message": "EngineCore encountered an issue", "type": "x", "code": 500}})
        service.vllm.healthy = False
        asking = asyncio.create_task(service.chat(BASE))
        await service.vllm.found_ill.wait()

        service.vllm.error, service.vllm.healthy = None, True

        answer = await asking
        assert answer.status_code == 200, answer.text


async def test_a_server_error_of_a_healthy_vllm_is_passed_on(service: ServiceUnderTest) -> None:
    service.vllm.error = (500, {"error": {"message": "no such thing", "type": "x", "code": 500}})

    answer = await service.chat(BASE)

    assert answer.status_code == 500
    assert answer.json()["error"] == {"message": "no such thing", "type": "server_error", "param": None, "code": None}
    assert len(service.vllm.asked) == 1


async def test_what_vllm_refuses_comes_in_openais_envelope(service: ServiceUnderTest) -> None:
    message = "This model's maximum context length is 512 tokens. However, you requested 600."
    service.vllm.error = (
        400,
        {"error": {"message": message, "type": "BadRequestError", "param": "messages", "code": 400}},
    )

    with pytest.raises(openai.BadRequestError) as refused:
        await service.client.chat.completions.create(model=BASE, messages=MESSAGES)

    assert refused.value.code == "context_length_exceeded"
    assert refused.value.param == "messages"
    assert message in refused.value.message


async def test_a_route_that_the_model_lacks_is_named(service: ServiceUnderTest) -> None:
    answer = await service.http.post("/v1/embeddings", json={"model": BASE, "input": "text"})

    assert answer.status_code == 400
    assert "/v1/embeddings" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"{", "invalid_json", "column 2"),
        (b"[1]", "invalid_value", "object"),
        (b'{"model": "tiny-base", "temperature": NaN}', "invalid_json", "JSON"),
        (b"{}", "missing_required_parameter", "`model`"),
        (b'{"model": 3}', "missing_required_parameter", "`model`"),
        (b"[" * 100_000, "invalid_json", "JSON"),
    ],
)
async def test_a_body_that_is_not_a_request_is_refused(
    service: ServiceUnderTest, content: bytes, code: str, says: str
) -> None:
    answer = await service.http.post("/v1/chat/completions", content=content)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == code
    assert says in answer.json()["error"]["message"]
    assert service.vllm.asked == []


@pytest.mark.parametrize(
    "model", ["gpt-4", "ft:tiny-base:tunestream:support:aaaaaaaa", "ft:::", "../../etc/passwd", "a" * 10_000]
)
async def test_a_model_that_nobody_trained_does_not_exist(service: ServiceUnderTest, model: str) -> None:
    answer = await service.chat(model)

    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert len(error["message"]) < 500
    assert service.vllm.asked == []


async def test_a_tuned_model_is_called_by_its_exact_id(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    answer = await service.chat(model)

    assert answer.json()["model"] == model
    assert answer.headers["x-tunestream-model"] == model


async def test_a_request_id_is_the_trace_id_and_vllm_joins_the_trace(service: ServiceUnderTest) -> None:
    body = {"model": BASE, "messages": MESSAGES}

    answer = await service.http.post("/v1/chat/completions", json=body, headers={"traceparent": TRACEPARENT})
    unasked = await service.chat(BASE)

    assert answer.headers["x-request-id"] == TRACE_ID
    assert service.vllm.headers[0]["traceparent"].split("-")[1] == TRACE_ID
    assert service.vllm.headers[1]["traceparent"].split("-")[1] == unasked.headers["x-request-id"] != TRACE_ID


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/secret"),
        ("POST", "/v1/tokenize"),
        ("POST", "/v1/load_lora_adapter"),
        ("POST", "/v1/unload_lora_adapter"),
        ("POST", "/v1/chat/completions/../load_lora_adapter"),
        ("POST", "/v1/responses"),
        ("GET", "/docs"),
    ],
)
async def test_nothing_else_of_vllm_can_be_reached(service: ServiceUnderTest, method: str, path: str) -> None:
    answer = await service.http.request(method, path, json={"lora_name": "x", "lora_path": "/etc"})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
    assert answer.headers["x-request-id"]
    assert service.vllm.loads == []


async def test_a_wrong_method_comes_in_the_envelope(service: ServiceUnderTest) -> None:
    answer = await service.http.get("/v1/chat/completions")

    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_supported"


async def test_while_the_object_store_is_away_the_base_still_answers(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    service.objects.available = False

    assert (await service.chat(BASE)).status_code == 200
    tuned = await service.chat(model)

    assert tuned.status_code == 503
    assert tuned.headers["retry-after"]


async def test_a_bug_comes_in_the_envelope_and_with_a_request_id(
    service: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(prefix: str) -> list[str]:
        raise RuntimeError("user text")

    monkeypatch.setattr(service.objects, "folders", broken)

    for answer in (
        await service.http.get("/v1/models"),
        await service.chat("ft:tiny-base:tunestream:support:aaaaaaaa"),
    ):
        assert answer.status_code == 500
        assert answer.json()["error"]["code"] == "internal_error"
        assert "user text" not in answer.text
        assert answer.headers["x-request-id"]


async def test_requests_and_tokens_are_counted_under_the_immutable_id(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, "counted")
    await service.chat(model)
    await service.chat("no-such-model")

    seen = await scrape()

    answered = {"model": model, "route": "/v1/chat/completions", "status": "200"}
    assert seen.value("tunestream_inference_requests_total", **answered) == 1
    assert seen.value("tunestream_inference_tokens_total", kind="completion", model=model) == 2
    assert "no-such-model" not in str(seen.labels("tunestream_inference_requests_total"))


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
async def test_the_tokens_of_a_stream_are_counted_though_its_client_does_not_ask_for_them(
    service: ServiceUnderTest, options: dict[str, Any]
) -> None:
    model = await add_trained(service.objects, "streamed")
    before = await scrape()
    answer = await service.chat(model, stream=True, **options)
    after = await scrape()

    for kind, count in (("prompt", 3), ("completion", 2)):
        name, labels = "tunestream_inference_tokens_total", {"model": model, "kind": kind}
        assert after.value(name, **labels) - before.value(name, **labels) == count
    events = answer.content.split(b"\n\n")
    assert [json.loads(event.removeprefix(b"data: "))["choices"][0]["delta"]["content"] for event in events[:2]] == [
        "one",
        "two",
    ]
    assert events[2:] == [b"data: [DONE]", b""]
    assert b"usage" not in answer.content


async def test_a_client_that_asks_for_the_usage_of_a_stream_gets_it(service: ServiceUnderTest) -> None:
    before = await scrape()
    stream = await service.client.chat.completions.create(
        model=BASE, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    after = await scrape()

    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 2
    labels = {"model": BASE, "kind": "completion"}
    name = "tunestream_inference_tokens_total"
    assert after.value(name, **labels) - before.value(name, **labels) == 2


async def test_invalid_parameters_reach_vllm_unchanged(service: ServiceUnderTest) -> None:
    """vLLM refuses them in its own words; the gateway must not correct them."""
    await service.chat(BASE, stream=True, stream_options="usage please")
    await service.chat(BASE, stream_options={"include_usage": True})
    await service.chat(BASE)

    assert [body.get("stream_options") for body in service.vllm.asked] == [
        "usage please",
        {"include_usage": True},
        None,
    ]


async def test_usage_is_not_put_into_every_event_of_a_client_that_wanted_it_in_none(service: ServiceUnderTest) -> None:
    """vLLM ignores `continuous_usage_stats` without `include_usage`, which is added here."""
    await service.chat(BASE, stream=True, stream_options={"continuous_usage_stats": True})

    assert service.vllm.asked[0]["stream_options"] == {"include_usage": True}


async def test_with_keys_every_route_but_health_needs_one(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with running_service(tmp_path, objects, clock, inference={"api_keys": ("first", "second")}) as service:
        del service.http.headers["authorization"]
        body = {"model": BASE, "messages": MESSAGES}
        for path, method in [
            ("/v1/chat/completions", "POST"),
            ("/v1/models", "GET"),
            ("/deployments", "GET"),
            ("/deployments/support/rollback", "POST"),
            ("/v1/files", "GET"),
        ]:
            for header, code in [
                (None, "missing_api_key"),
                ("Bearer", "missing_api_key"),
                ("first", "missing_api_key"),
                ("Basic first", "missing_api_key"),
                ("Bearer wrong", "invalid_api_key"),
            ]:
                headers = {"authorization": header} if header else {}
                answer = await service.http.request(method, path, json=body, headers=headers)
                assert answer.status_code == 401, (path, header)
                assert answer.json()["error"]["code"] == code
        allowed = await service.http.post("/v1/chat/completions", json=body, headers={"authorization": "Bearer second"})

        assert allowed.status_code == 200
        assert (await service.http.get("/health/live")).status_code == 200
        assert service.api.bodies == []


async def test_readiness_follows_vllm(service: ServiceUnderTest) -> None:
    assert (await service.chat(BASE)).status_code == 200
    assert (await service.http.get("/health/ready")).status_code == 200

    service.vllm.healthy = False
    service.vllm.breaks = 1
    await service.chat(BASE)

    answer = await service.http.get("/health/ready")
    assert answer.status_code == 503
    assert "vllm" in json.loads(answer.content)["problems"]
