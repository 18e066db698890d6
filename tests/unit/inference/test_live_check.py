"""What a deployment asks the live server about the model that it has loaded, and what the answers do."""

from __future__ import annotations

import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.inference.domain.weights import changes_nothing
from shared.conversation import digest_of
from shared.errors import InputError
from shared.events import JobProgress, ModelDeployed, Served
from tests.support.data.trained_models import LORA, add_trained
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.fakes.vllm import BASE_AT_VLLM
from tests.unit.inference.conftest import ServiceUnderTest, running_service
from tests.unit.inference.test_work import attempt

TOKENS = [7, 8, 9]
TRAINED = Served(turns=1, server="0.32.0", probe=digest_of(TOKENS))


def adapter(**tensors: bytes) -> dict[str, bytes]:
    """The files of an adapter with these tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, value in tensors.items():
        begin = len(data)
        data += value
        header[f"layer.{name}.weight"] = {"dtype": "F32", "shape": [1], "data_offsets": [begin, len(data)]}
    described = json.dumps(header).encode()
    weights = struct.pack("<Q", len(described)) + described + data
    return {"adapter_config.json": json.dumps(LORA).encode(), "adapter_model.safetensors": weights}


@pytest.fixture
async def service(service: ServiceUnderTest) -> ServiceUnderTest:
    service.vllm.tokens = TOKENS
    return service


@pytest.fixture
async def lenient(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[ServiceUnderTest]:
    async with running_service(tmp_path, objects, clock, render={"policy": "warn"}) as opened:
        opened.vllm.tokens = [1]
        yield opened


async def deployed(service: ServiceUnderTest, served: Served | None = TRAINED) -> str:
    """Deploy; returns what the progress says of the live server."""
    said: list[JobProgress] = []
    event = await service.work(await attempt(service.objects, served=served, said=said))
    assert isinstance(event, ModelDeployed)
    return said[-1].message


async def test_the_tokens_of_the_training_and_an_adapter_with_effect(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    assert await deployed(service) == ("the server makes the tokens of the training; the adapter changes its answers")
    assert [body["model"] for body in service.vllm.probed] == [BASE_AT_VLLM, model]
    assert [body["prompt"] for body in service.vllm.probed] == [TOKENS, TOKENS]


async def test_other_tokens_than_those_of_the_training_end_the_job(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.tokens = [7, 8]
    with pytest.raises(InputError, match="--chat-template") as caught:
        await deployed(service)
    assert caught.value.code == "served_differently"
    assert not [key for key in service.objects.held if key.startswith("deployments/")]


async def test_an_adapter_without_effect_ends_the_job(service: ServiceUnderTest) -> None:
    await add_trained(service.objects, files=adapter(lora_A=b"\x01\0\0\0", lora_B=b"\0\0\0\x01"))
    service.vllm.effect = False
    with pytest.raises(InputError, match="target_modules") as caught:
        await deployed(service)
    assert caught.value.code == "adapter_without_effect"
    assert not [key for key in service.objects.held if key.startswith("deployments/")]


async def test_an_adapter_that_learnt_nothing_is_not_taken_for_one_without_effect(service: ServiceUnderTest) -> None:
    await add_trained(service.objects, files=adapter(lora_A=b"\x01\0\0\0", lora_B=b"\0\0\0\0"))
    service.vllm.effect = False
    assert "the adapter learnt nothing" in await deployed(service)


async def test_with_the_policy_warn_the_model_is_deployed_all_the_same(lenient: ServiceUnderTest) -> None:
    await add_trained(lenient.objects)
    lenient.vllm.effect = False
    said = await deployed(lenient)
    assert "makes other tokens" in said and "the same probabilities" in said


@pytest.mark.parametrize("served", [None, Served(not_asked="no render server is configured")])
async def test_without_a_digest_the_progress_says_that_nothing_was_compared(
    served: Served | None, service: ServiceUnderTest
) -> None:
    await add_trained(service.objects)
    said = await deployed(service, served)
    assert said.startswith("tokens not compared with the live server: validate has left no digest")
    assert said.endswith("the adapter changes its answers")


async def test_a_server_that_renders_is_asked_that_way(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.can_render = True
    assert "makes the tokens of the training" in await deployed(service)


async def test_a_server_that_does_not_say_its_tokens_still_shows_the_effect(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.tokens = None
    assert await deployed(service) == (
        "not compared with the live server: the model server does not say its tokens (status 404); "
        "the adapter changes its answers"
    )


@pytest.mark.parametrize(
    ("files", "nothing"),
    [
        (adapter(lora_A=b"\x01\0", lora_B=b"\0\0"), True),
        (adapter(lora_A=b"\0\0", lora_B=b"\0\x80"), False),
        (adapter(lora_A=b"\0\0"), False),
        ({"adapter_model.safetensors": b""}, False),
        ({"adapter_model.safetensors": b'\x05\0\0\0\0\0\0\0{"a":'}, False),
    ],
)
def test_only_zeros_in_every_b_change_nothing(files: dict[str, bytes], nothing: bool) -> None:
    weights = files["adapter_model.safetensors"]
    assert changes_nothing(lambda offset, length: weights[offset : offset + length]) is nothing
