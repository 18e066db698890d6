"""A request of which vLLM dies is not sent to it again and again, and those beside it are answered."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import openai
import pytest

from services.inference import app as composition
from services.inference.gateway.gateway import Gateway
from tests.support.data.trained_models import BASE, add_trained
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.scrape import scrape
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service

DEADLY = "a prompt that kills"


@pytest.fixture
async def patient(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServiceUnderTest]:
    """The service in front of a vLLM that dies of `DEADLY`. Its requests wait for vLLM as long as it takes."""
    monkeypatch.setattr(composition, "Gateway", functools.partial(Gateway, patience=60))
    async with running_service(tmp_path, objects, clock) as service:
        assert (await service.chat(BASE)).status_code == 200
        service.vllm.deadly = DEADLY
        yield service


async def kill(service: ServiceUnderTest, model: str = BASE, **more: object) -> httpx.Response:
    return await service.chat(model, messages=[{"role": "user", "content": DEADLY}], **more)


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_a_request_that_kills_vllm_is_sent_to_it_twice_at_most(patient: ServiceUnderTest) -> None:
    before = await scrape()

    answers = [await kill(patient) for _ in range(4)]

    assert [code(answer) for answer in answers] == [
        (503, "service_unavailable"),
        *[(400, "request_kills_server")] * 3,
    ]
    assert int(answers[0].headers["retry-after"]) > 0
    assert patient.vllm.deaths == 2
    after = await scrape()
    name = "tunestream_inference_refused_total"
    assert after.value(name, reason="kills_vllm") - before.value(name, reason="kills_vllm") == 3
    assert (await patient.chat(BASE)).status_code == 200


async def test_the_official_client_does_not_try_it_again_and_again(
    patient: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai.AsyncOpenAI, "_calculate_retry_timeout", lambda *_: 0.0)
    client = patient.client.with_options(max_retries=5)

    with pytest.raises(openai.BadRequestError, match="died 2 times"):
        await client.chat.completions.create(model=BASE, messages=[{"role": "user", "content": DEADLY}])

    assert patient.vllm.deaths == 2


async def test_those_that_were_under_way_beside_it_are_answered(patient: ServiceUnderTest) -> None:
    patient.vllm.first.clear()
    beside = [asyncio.create_task(patient.chat(BASE, seed=seed)) for seed in range(20)]
    await until(lambda: len(patient.vllm.asked) == 21, "vLLM works on all of them")

    killing = await kill(patient)

    assert [(await one).status_code for one in beside] == [200] * 20
    assert code(killing) == (400, "request_kills_server")
    assert patient.vllm.deaths == 2
    assert [(await patient.chat(BASE, seed=seed)).status_code for seed in range(20)] == [200] * 20


async def test_another_request_for_the_same_model_is_not_refused(patient: ServiceUnderTest) -> None:
    for _ in range(2):
        await kill(patient)
    model = await add_trained(patient.objects)
    patient.vllm.deadly = None

    assert (await kill(patient)).status_code == 400
    assert (await kill(patient, seed=1)).status_code == 200
    assert (await kill(patient, model)).status_code == 200


async def test_a_stream_of_which_vllm_dies_midway_counts_too(patient: ServiceUnderTest) -> None:
    patient.vllm.breaks_midway = True
    for _ in range(2):
        patient.vllm.rest.clear()
        asking = asyncio.create_task(patient.chat(BASE, stream=True))
        asked = len(patient.vllm.asked)
        await until(lambda asked=asked: len(patient.vllm.asked) > asked, "it has begun")
        patient.vllm.healthy = False
        patient.vllm.rest.set()
        assert b"broke in the middle" in (await asking).content
        patient.vllm.healthy = True

    assert code(await patient.chat(BASE, stream=True)) == (400, "request_kills_server")


async def test_an_answer_that_is_not_streamed_and_breaks_midway_is_no_bug(service: ServiceUnderTest) -> None:
    service.vllm.cut = True

    assert code(await service.chat(BASE)) == (502, "bad_gateway")
