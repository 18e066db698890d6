"""A thousand answers that are open at once: vLLM's health is still known, and control calls do not wait for them."""

from __future__ import annotations

import asyncio
import functools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from services.inference import app as composition
from services.inference.gateway.gateway import PATIENCE, Gateway
from tests.support.data.trained_models import BASE, add_trained
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.inference.conftest import KEY, ServiceUnderTest, running_service


@asynccontextmanager
async def open_stream(service: ServiceUnderTest) -> AsyncIterator[int]:
    """A stream of which the first event has come, and no more. Yields its status."""
    body = json.dumps({"model": BASE, "messages": [], "stream": True}).encode()
    reader, writer = await asyncio.open_connection(service.http.base_url.host, service.http.base_url.port)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\ncontent-length: %d\r\n\r\n"
    head %= (KEY.encode(), len(body))
    writer.write(head + body)
    found = re.match(rb"HTTP/1.1 (\d+)", await reader.readuntil(b"}"))
    assert found is not None
    try:
        yield int(found[1])
    finally:
        writer.close()


async def open_streams(stack: AsyncExitStack, service: ServiceUnderTest, count: int) -> list[int]:
    return list(await asyncio.gather(*[stack.enter_async_context(open_stream(service)) for _ in range(count)]))


async def test_a_thousand_streams_hide_neither_the_health_of_vllm_nor_hold_up_an_adapter(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One event loop is clients, gateway and vLLM here, so a health check may take longer than the 0.3 s of other tests.
    monkeypatch.setattr(composition, "Gateway", functools.partial(Gateway, patience=PATIENCE))
    async with running_service(tmp_path, objects, clock) as service, AsyncExitStack() as stack:
        model = await add_trained(service.objects)
        service.vllm.rest.clear()
        for _ in range(10):
            assert await open_streams(stack, service, 100) == [200] * 100

        assert await service.work._trial._vllm.healthy()
        assert (await service.chat(model)).status_code == 200
        assert service.vllm.loads == [model]
        assert (await service.http.get("/health/ready")).status_code == 200


async def test_a_generation_too_many_is_told_at_once_when_to_come_back(
    tmp_path: Path, objects: FakeStore, clock: Clock
) -> None:
    async with running_service(tmp_path, objects, clock, inference={"max_generations": 3}) as service:
        service.vllm.rest.clear()
        before = await scrape()
        async with AsyncExitStack() as stack:
            assert await open_streams(stack, service, 3) == [200] * 3

            refused = await service.chat(BASE)

            error = refused.json()["error"]
            assert (refused.status_code, error["code"], error["type"]) == (
                429,
                "rate_limit_exceeded",
                "rate_limit_error",
            )
            assert int(refused.headers["retry-after"]) > 0
            assert (await service.http.get("/v1/models")).status_code == 200
            assert (await service.http.get("/health/ready")).status_code == 200
            assert (await service.http.get("/v1/files")).status_code == 201
            after = await scrape()
        name = "tunestream_inference_refused_total"
        assert after.value(name, reason="generations") - before.value(name, reason="generations") == 1
        assert after.value("tunestream_inference_under_way") == 3

        service.vllm.rest.set()
        await until(lambda: answers(service), "a place is free again")


async def answers(service: ServiceUnderTest) -> bool:
    return (await service.chat(BASE)).status_code == 200
