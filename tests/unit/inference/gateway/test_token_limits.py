"""The tokens of generations count against the limit of their key, streamed or not, also where the client hangs up."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.data.keys import add_key, secret
from tests.support.data.trained_models import BASE
from tests.support.fakes.vllm import USAGE
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest

LIMIT = 1000
PATHS = ["/v1/chat/completions", "/v1/completions"]


async def remaining(service: ServiceUnderTest) -> int:
    answer = await service.http.get("/v1/models", headers=headers())
    return int(answer.headers["x-ratelimit-remaining-tokens"])


def headers() -> dict[str, str]:
    return {"authorization": f"Bearer {secret('b')}"}


async def key(service: ServiceUnderTest, limit: int = LIMIT) -> None:
    await add_key(service.objects, "b", limits={"tokens_per_minute": limit})


def body(**more: Any) -> dict[str, Any]:
    return {"model": BASE, "messages": [{"role": "user", "content": "hi"}], **more}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
async def test_the_usage_of_an_answer_counts(service: ServiceUnderTest, path: str, stream: dict[str, Any]) -> None:

    await key(service)
    answer = await service.http.post(path, json=body(**stream), headers=headers())
    assert answer.status_code == 200
    used = USAGE["prompt_tokens"] + USAGE["completion_tokens"]
    assert LIMIT - used <= await remaining(service) <= LIMIT - used + 20, "a second brings 17"


async def test_a_client_that_hangs_up_has_used_tokens_too(service: ServiceUnderTest) -> None:
    """One per event at least: else whoever hangs up before the usage comes has no limit."""
    await key(service, 1)
    service.vllm.rest.clear()
    async with service.http.stream("POST", "/v1/chat/completions", json=body(stream=True), headers=headers()) as answer:
        async for _ in answer.aiter_raw():
            break
    await until(service.vllm.hung_up.is_set, "the gateway to hang up on vLLM")
    service.vllm.rest.set()

    answer = await service.http.post("/v1/chat/completions", json=body(), headers=headers())
    assert answer.status_code == 429


async def test_a_refusal_comes_before_the_body_is_read(service: ServiceUnderTest) -> None:
    await key(service, 1)
    await service.http.post("/v1/chat/completions", json=body(), headers=headers())
    asked = len(service.vllm.asked)
    answer = await service.http.post("/v1/chat/completions", content=b"{", headers=headers())
    assert answer.status_code == 429, "not 400, for a body that is no JSON"
    error = json.loads(answer.content)["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "rate_limit_error")
    assert int(answer.headers["retry-after-ms"]) > 0
    assert len(service.vllm.asked) == asked


async def test_what_is_forwarded_has_the_headers_once(service: ServiceUnderTest) -> None:
    await key(service)
    answer = await service.http.get("/v1/files", headers=headers())
    for name in ("openai-organization", "openai-version"):
        assert len(answer.headers.get_list(name)) == 1
    # the service that answers counts the request, and tells its limits
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
