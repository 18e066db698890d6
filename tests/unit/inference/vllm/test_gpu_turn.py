"""`gpu.share = alternate`: the endpoint gives the GPU to a training and gets it back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.errors import ConfigError
from shared.stages.gpu_turns import GpuTurns
from shared.stages.lease import Lease
from tests.support.clock import Clock
from tests.support.store import FakeStore
from tests.support.trained_models import BASE, add_trained
from tests.support.waiting import until
from tests.unit.inference.conftest import QUICK, House, open_house
from tests.unit.inference.test_work import attempt

ALTERNATE: dict[str, Any] = {"share": "alternate", "serve_seconds": 0.0}
TRAINER = "trainer/a"


@pytest.fixture
def turns(objects: FakeStore, clock: Clock) -> GpuTurns:
    """As a trainer sees them."""
    return GpuTurns(objects, "0", clock, lease_seconds=15)


@pytest.fixture
async def house(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[House]:
    async with open_house(tmp_path, objects, clock, gpu=ALTERNATE) as opened:
        await awake(opened)
        yield opened


async def awake(house: House) -> None:
    while (await house.chat(BASE)).status_code != 200:
        await asyncio.sleep(0.005)


async def turn_of_training(turns: GpuTurns) -> Lease:
    async with asyncio.timeout(10):
        while (lease := await turns.for_training(TRAINER)) is None:
            await asyncio.sleep(0.005)
    return lease


async def test_a_training_gets_the_gpu_of_a_sleeping_vllm_and_gives_it_back(house: House, turns: GpuTurns) -> None:
    model = await add_trained(house.objects)
    assert (await house.chat(model)).status_code == 200

    lease = await turn_of_training(turns)
    assert house.vllm.sleeping
    refused = await house.chat(model)
    await turns.release(lease)
    await awake(house)

    assert refused.status_code == 503
    assert refused.json()["error"]["code"] == "model_sleeping"
    assert 0 < int(refused.headers["retry-after"]) <= 60  # what the official client obeys
    assert (await house.chat(model)).status_code == 200
    assert house.vllm.loads == [model]  # level 1 keeps the adapters
    assert house.vllm.sleeps == [{"level": "1", "mode": "wait"}]
    assert house.vllm.asked_asleep == 0


async def test_a_request_under_way_is_finished_first(house: House, turns: GpuTurns) -> None:
    house.vllm.rest.clear()
    body = {"model": BASE, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with house.http.stream("POST", "/v1/chat/completions", json=body) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        waiting = asyncio.create_task(turn_of_training(turns))
        while (await house.chat(BASE)).status_code != 503:  # it takes no more
            await asyncio.sleep(0.005)
        assert not house.vllm.sleeping and not waiting.done()

        house.vllm.rest.set()
        rest = b"".join([chunk async for chunk in chunks])

    assert rest.endswith(b"data: [DONE]\n\n")
    await waiting
    assert house.vllm.sleeping


async def test_a_sleeping_endpoint_is_ready(house: House, turns: GpuTurns) -> None:
    """A load balancer that dropped it would answer for it, without `retry-after`, and hide what it still serves."""
    await turn_of_training(turns)

    assert (await house.http.get("/health/ready")).status_code == 200
    assert (await house.http.get("/v1/models")).status_code == 200
    assert "tunestream_vllm_asleep 1.0" in (await house.http.get("/metrics")).text


async def test_a_trainer_that_dies_leaves_the_gpu_to_the_endpoint(house: House, turns: GpuTurns, clock: Clock) -> None:
    await turn_of_training(turns)

    clock.now += 15

    await awake(house)
    assert not house.vllm.sleeping


async def test_a_vllm_that_does_not_fall_asleep_keeps_the_turn(house: House, turns: GpuTurns) -> None:
    house.vllm.server.stop_listening()
    house.vllm.server.break_connections()

    for _ in range(50):
        assert await turns.for_training(TRAINER) is None
        await asyncio.sleep(0.005)


async def test_a_vllm_that_is_restarted_during_a_training_is_put_to_sleep_again(house: House, turns: GpuTurns) -> None:
    await turn_of_training(turns)

    house.vllm.sleeping = False  # it came up awake

    await until(lambda: house.vllm.sleeping, "vLLM sleeps")


async def test_after_a_training_the_next_one_waits_for_the_serving_window(
    tmp_path: Path, objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    async with open_house(tmp_path, objects, clock, gpu=ALTERNATE | {"serve_seconds": 0.5}) as house:
        await awake(house)
        first = await turn_of_training(turns)  # the endpoint owes nothing before the first
        await turns.release(first)
        await awake(house)
        began = time.monotonic()

        await turn_of_training(turns)

    assert time.monotonic() - began > 0.4


async def test_a_deployment_waits_until_the_model_is_awake_and_no_attempt_is_lost(
    house: House, turns: GpuTurns
) -> None:
    model = await add_trained(house.objects)
    lease = await turn_of_training(turns)
    deploying = asyncio.create_task(house.work(await attempt(house.objects)))
    done, _ = await asyncio.wait({deploying}, timeout=2 * QUICK)  # longer than it would wait for a vLLM that is down
    assert not done

    await turns.release(lease)

    await asyncio.wait_for(deploying, 10)
    assert (await house.chat("support")).json()["model"] == model


async def test_stopping_the_service_leaves_the_gpu_to_training(
    tmp_path: Path, objects: FakeStore, clock: Clock, turns: GpuTurns
) -> None:
    async with open_house(tmp_path, objects, clock, gpu=ALTERNATE) as house:
        await awake(house)

    assert house.vllm.sleeping
    assert await turns.for_training(TRAINER) is not None


async def test_a_vllm_that_cannot_sleep_is_a_wrong_setting(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with open_house(tmp_path, objects, clock, gpu=ALTERNATE) as house:
        house.vllm.can_sleep = False
        _, controller = house.parts.background

        with pytest.raises(ConfigError, match="TUNESTREAM_GPU__SHARE=alternate needs"):
            await asyncio.wait_for(_awaited(controller), 10)


async def _awaited(task: Any) -> None:
    await task()


async def test_with_split_nobody_writes_of_turns(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with open_house(tmp_path, objects, clock) as house:
        await awake(house)

        assert len(house.parts.background) == 1
        assert house.vllm.sleeps == []
        assert not [key for key in objects.held if key.startswith("gpu/")]
