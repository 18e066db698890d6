"""`gpu.share = alternate`: the endpoint gives the GPU to a training and gets it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.inference.vllm.gpu_turn import SleepController
from shared.errors import ConfigError, TransientError
from shared.stages.gpu_turns import GpuTurns
from shared.stages.lease import Lease
from tests.support.data.trained_models import BASE, add_trained
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.waiting import eventually, until
from tests.unit.inference.conftest import ServiceUnderTest, running_service
from tests.unit.inference.test_work import attempt

ALTERNATE: dict[str, Any] = {"share": "alternate", "serve_seconds": 0.0}
TRAINER = "trainer/a"


@pytest.fixture
def turns(objects: FakeStore, clock: Clock) -> GpuTurns:
    """The turns of the GPU, as a trainer uses them."""
    return GpuTurns(objects, "0", lease_seconds=15)


@pytest.fixture
async def service(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[ServiceUnderTest]:
    async with running_service(tmp_path, objects, clock, gpu=ALTERNATE) as opened:
        await awake(opened)
        yield opened


async def awake(service: ServiceUnderTest) -> None:
    while (await service.chat(BASE)).status_code != 200:
        await asyncio.sleep(0.005)


async def turn_of_training(turns: GpuTurns) -> Lease:
    async with asyncio.timeout(10):
        while (lease := await turns.for_training(TRAINER)) is None:
            await asyncio.sleep(0.005)
    return lease


async def test_a_training_gets_the_gpu_of_a_sleeping_vllm_and_gives_it_back(
    service: ServiceUnderTest, turns: GpuTurns
) -> None:
    model = await add_trained(service.objects)
    assert (await service.chat(model)).status_code == 200

    lease = await turn_of_training(turns)
    assert service.vllm.sleeping
    refused = await service.chat(model)
    await turns.release(lease)
    await awake(service)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "model_sleeping"
    assert 0 < int(refused.headers["retry-after"]) <= 60  # what the official client obeys
    assert (await service.chat(model)).status_code == 200
    assert service.vllm.loads == [model]  # level 1 keeps the adapters
    assert service.vllm.sleeps == [{"level": "1", "mode": "wait"}]
    assert service.vllm.asked_asleep == 0


async def test_a_request_under_way_is_finished_first(service: ServiceUnderTest, turns: GpuTurns) -> None:
    service.vllm.rest.clear()
    body = {"model": BASE, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        waiting = asyncio.create_task(turn_of_training(turns))
        while (await service.chat(BASE)).status_code != 503:  # it takes no more
            await asyncio.sleep(0.005)
        assert not service.vllm.sleeping and not waiting.done()

        service.vllm.rest.set()
        rest = b"".join([chunk async for chunk in chunks])

    assert rest.endswith(b"data: [DONE]\n\n")
    await waiting
    assert service.vllm.sleeping


async def test_a_sleeping_endpoint_is_ready(service: ServiceUnderTest, turns: GpuTurns) -> None:
    """If a load balancer dropped it, clients would get the balancer's answers, without `retry-after`, and miss what the
    endpoint still serves."""
    await turn_of_training(turns)

    assert (await service.http.get("/health/ready")).status_code == 200
    assert (await service.http.get("/v1/models")).status_code == 200
    assert (await scrape()).value("tunestream_vllm_asleep") == 1


async def test_a_trainer_that_dies_leaves_the_gpu_to_the_endpoint(
    service: ServiceUnderTest, turns: GpuTurns, clock: Clock
) -> None:
    await turn_of_training(turns)

    clock.now += 15

    await awake(service)
    assert not service.vllm.sleeping


async def test_a_vllm_that_does_not_fall_asleep_keeps_the_turn(service: ServiceUnderTest, turns: GpuTurns) -> None:
    service.vllm.server.stop_listening()
    service.vllm.server.break_connections()

    for _ in range(50):
        assert await turns.for_training(TRAINER) is None
        await asyncio.sleep(0.005)


async def test_a_vllm_that_is_restarted_during_a_training_is_put_to_sleep_again(
    service: ServiceUnderTest, turns: GpuTurns
) -> None:
    await turn_of_training(turns)

    service.vllm.sleeping = False  # it came up awake

    await until(lambda: service.vllm.sleeping, "vLLM sleeps")


async def test_after_a_training_the_next_one_waits_for_the_serving_window(
    tmp_path: Path, objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    async with running_service(tmp_path, objects, clock, gpu=ALTERNATE | {"serve_seconds": 0.5}) as service:
        await awake(service)
        first = await turn_of_training(turns)  # the endpoint owes nothing before the first
        await turns.release(first)
        await awake(service)
        began = time.monotonic()

        await turn_of_training(turns)

    assert time.monotonic() - began > 0.4


async def test_a_deployment_comes_again_when_the_model_is_awake(service: ServiceUnderTest, turns: GpuTurns) -> None:
    model = await add_trained(service.objects)
    lease = await turn_of_training(turns)
    with pytest.raises(TransientError, match="a training has the GPU"):
        await service.work(await attempt(service.objects))

    await turns.release(lease)

    await eventually(lambda: deploy(service), TransientError, 10)
    assert (await service.chat("support")).json()["model"] == model


async def deploy(service: ServiceUnderTest) -> None:
    await service.work(await attempt(service.objects))


async def test_stopping_the_service_leaves_the_gpu_to_training(
    tmp_path: Path, objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    async with running_service(tmp_path, objects, clock, gpu=ALTERNATE) as service:
        await awake(service)

    assert service.vllm.sleeping
    assert await turns.for_training(TRAINER) is not None


def _of(task: Any) -> object:
    return task.__self__


async def test_a_vllm_that_cannot_sleep_is_a_wrong_setting(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with running_service(tmp_path, objects, clock, gpu=ALTERNATE) as service:
        service.vllm.can_sleep = False
        [controller] = [task for task in service.parts.background if isinstance(_of(task), SleepController)]

        with pytest.raises(ConfigError, match="TUNESTREAM_GPU__SHARE=alternate needs"):
            await asyncio.wait_for(_awaited(controller), 10)


async def _awaited(task: Any) -> None:
    await task()


async def test_with_split_no_turns_are_written_to_the_ledger(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with running_service(tmp_path, objects, clock) as service:
        await awake(service)

        assert not [task for task in service.parts.background if isinstance(_of(task), SleepController)]
        assert service.vllm.sleeps == []
        assert not [key for key in objects.held if key.startswith("gpu/")]
