"""How a tuned model comes to be served: looked up, checked, loaded once, and made room for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.inference.domain.adapter import SERVED_FILES
from tests.support.clock import Clock
from tests.support.store import FakeStore
from tests.support.trained_models import BASE, add_trained, job_id
from tests.unit.inference.conftest import House, open_house


async def test_a_hundred_first_requests_load_an_adapter_once(house: House) -> None:
    model = await add_trained(house.objects)

    answers = await asyncio.gather(*(house.chat(model) for _ in range(100)))

    assert {answer.status_code for answer in answers} == {200}
    assert house.vllm.loads == [model]
    downloads = [key for name, key in house.objects.calls if name == "read" and key.endswith(".safetensors")]
    assert len(downloads) == 1


async def test_the_first_who_asks_may_hang_up_without_harm_to_the_others(house: House) -> None:
    model = await add_trained(house.objects)
    first = asyncio.create_task(house.chat(model))
    await asyncio.sleep(0)
    others = [asyncio.create_task(house.chat(model)) for _ in range(5)]
    await asyncio.sleep(0.005)

    first.cancel()

    assert {answer.status_code for answer in await asyncio.gather(*others)} == {200}


async def test_vllm_sees_two_files_in_an_absolute_folder_of_the_version(house: House) -> None:
    model = await add_trained(house.objects)

    await house.chat(model)

    path = Path(house.vllm.adapters[model])
    assert path.is_absolute()
    assert path.parent == house.folder.resolve() / job_id("one")
    assert sorted(file.name for file in path.iterdir()) == sorted(SERVED_FILES)
    assert [item.name for item in path.parent.iterdir()] == [path.name]  # no half-made folder beside it


async def test_a_vllm_that_lost_its_adapters_is_given_them_again(house: House) -> None:
    model = await add_trained(house.objects)
    await house.chat(model)
    house.vllm.adapters.clear()  # restarted, faster than anyone noticed

    answer = await house.chat(model)

    assert answer.status_code == 200
    assert house.vllm.loads == [model, model]


async def test_a_vllm_that_is_restarted_under_a_request_is_given_its_adapters_again(house: House) -> None:
    model = await add_trained(house.objects)
    await house.chat(model)
    house.vllm.adapters.clear()
    house.vllm.breaks = 1

    answer = await house.chat(model)

    assert answer.status_code == 200
    assert house.vllm.loads == [model, model]


async def test_an_adapter_that_vllm_has_already_is_success(house: House) -> None:
    model = await add_trained(house.objects)
    house.vllm.adapters[model] = "/loaded/before/this/service/started"

    assert (await house.chat(model)).status_code == 200


async def test_a_checkpoint_is_a_model_of_its_own(house: House) -> None:
    model = await add_trained(house.objects, checkpoint=30)

    answer = await house.chat(f"{model}:ckpt-step-30")

    assert answer.json()["model"] == f"{model}:ckpt-step-30"
    assert (await house.chat(f"{model}:ckpt-step-40")).status_code == 404
    assert list(house.vllm.adapters) == [f"{model}:ckpt-step-30"]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"r": 128}, "MAX_LORA_RANK"),
        ({"rank_pattern": {"q_proj": 256}}, "256"),
        ({"use_dora": True}, "DoRA"),
        ({"bias": "all"}, "biases"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
async def test_what_vllm_cannot_serve_is_refused_with_the_reason(
    house: House, config: dict[str, Any], says: str
) -> None:
    model = await add_trained(house.objects, config=config)

    answer = await house.chat(model)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "model_not_servable"
    assert says in answer.json()["error"]["message"]
    assert house.vllm.loads == []


async def test_pickles_are_never_given_to_vllm(house: House) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80\x04"}
    model = await add_trained(house.objects, files=files)

    answer = await house.chat(model)

    assert answer.status_code == 400
    assert "adapter_model.bin" in answer.json()["error"]["message"]
    assert list(house.folder.rglob("*.bin")) == []


async def test_a_model_of_another_base_is_refused(house: House) -> None:
    model = await add_trained(house.objects, base="other/base")

    answer = await house.chat(model)

    assert answer.status_code == 400
    assert "other/base" in answer.json()["error"]["message"] and BASE in answer.json()["error"]["message"]


async def test_a_damaged_adapter_is_never_given_to_vllm(house: House) -> None:
    model = await add_trained(house.objects)
    weights = next(key for key in house.objects.held if key.endswith("adapter_model.safetensors"))
    await house.objects.put(weights, b"something else")

    answer = await house.chat(model)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "adapter_unusable")
    assert house.vllm.loads == []


async def test_a_failed_load_is_tried_again_by_the_next_request(house: House) -> None:
    model = await add_trained(house.objects)
    house.objects.available = False
    assert (await house.chat(model)).status_code == 503

    house.objects.available = True

    assert (await house.chat(model)).status_code == 200


async def test_the_least_recently_used_make_room(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with open_house(tmp_path, objects, clock, vllm={"max_loras": 1}) as house:  # four are held
        models = [await add_trained(objects, f"job {number}") for number in range(5)]
        for model in [*models[:4], models[0], models[4]]:
            assert (await house.chat(model)).status_code == 200

        assert (await house.chat(models[0])).status_code == 200

        assert house.vllm.unloads == [models[1]]
        assert sorted(house.vllm.adapters) == sorted(set(models) - {models[1]})


async def test_a_model_in_use_is_not_unloaded(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with open_house(tmp_path, objects, clock, vllm={"max_loras": 1}) as house:
        models = [await add_trained(objects, f"job {number}") for number in range(6)]
        house.vllm.rest.clear()
        body = {"model": models[0], "messages": [], "stream": True}
        async with house.http.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = response.aiter_raw()
            await anext(chunks)
            for model in models[1:]:
                await house.chat(model)

            assert models[0] in house.vllm.adapters
            assert house.vllm.unloads == models[1:3]
