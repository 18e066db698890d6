"""Serving a tuned model: it is looked up, checked and loaded once, and others make room for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.inference.domain.adapter import SERVED_FILES
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service


async def test_a_hundred_first_requests_load_an_adapter_once(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    answers = await asyncio.gather(*(service.chat(model) for _ in range(100)))

    assert {answer.status_code for answer in answers} == {200}
    assert service.vllm.loads == [model]
    downloads = [key for name, key in service.objects.calls if name == "read" and key.endswith(".safetensors")]
    assert len(downloads) == 1


async def test_the_first_adapter_in_the_life_of_a_server_is_asked_before_anybody_may_use_it(
    service: ServiceUnderTest,
) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")

    assert (await service.chat(first)).status_code == 200
    asked = list(service.vllm.warmed)
    assert {body["model"] for body in asked} == {first}
    sizes = [len(body["prompt"]) for body in asked]
    assert 1 in sizes and max(sizes) > 128
    beginnings = [body["prompt"][0] for body in asked]
    assert len(set(beginnings)) == len(asked), "the prefix cache helps none of them"

    assert (await service.chat(second)).status_code == 200
    assert service.vllm.warmed == asked, "the kernels are the same"


async def test_a_server_that_started_again_is_warmed_up_again(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.chat(model)
    before = len(service.vllm.warmed)
    service.vllm.deadly = "poison"
    await service.chat(model, messages=[{"role": "user", "content": "poison"}])
    service.vllm.deadly = None

    async def answers() -> bool:
        return (await service.chat(model)).status_code == 200

    await until(answers, "it is back")

    assert len(service.vllm.warmed) == 2 * before


async def test_a_server_that_cannot_be_warmed_up_is_used_as_it_is(service: ServiceUnderTest) -> None:
    service.vllm.cold = True
    model = await add_trained(service.objects)

    assert (await service.chat(model)).status_code == 200


async def test_the_first_client_may_hang_up_without_harm_to_the_others(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    first = asyncio.create_task(service.chat(model))
    await asyncio.sleep(0)
    others = [asyncio.create_task(service.chat(model)) for _ in range(5)]
    await asyncio.sleep(0.005)

    first.cancel()

    assert {answer.status_code for answer in await asyncio.gather(*others)} == {200}


async def test_vllm_sees_two_files_in_an_absolute_folder_of_the_version(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    await service.chat(model)

    path = Path(service.vllm.adapters[model])
    assert path.is_absolute()
    assert path.parent == service.folder.resolve() / job_id("one")
    assert sorted(file.name for file in path.iterdir()) == sorted(SERVED_FILES)
    assert [item.name for item in path.parent.iterdir()] == [path.name]  # no half-made folder beside it


async def test_a_vllm_that_lost_its_adapters_is_given_them_again(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.chat(model)
    service.vllm.adapters.clear()  # restarted, so fast that the service did not notice

    answer = await service.chat(model)

    assert answer.status_code == 200
    assert service.vllm.loads == [model, model]


async def test_a_vllm_that_is_restarted_under_a_request_is_given_its_adapters_again(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.chat(model)
    service.vllm.adapters.clear()
    service.vllm.breaks = 1

    answer = await service.chat(model)

    assert answer.status_code == 200
    assert service.vllm.loads == [model, model]


async def test_loading_an_adapter_that_vllm_has_already_is_a_success(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    service.vllm.adapters[model] = "/loaded/before/this/service/started"

    assert (await service.chat(model)).status_code == 200


async def test_a_checkpoint_is_a_model_of_its_own(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, checkpoint=30)

    answer = await service.chat(f"{model}:ckpt-step-30")

    assert answer.json()["model"] == f"{model}:ckpt-step-30"
    assert (await service.chat(f"{model}:ckpt-step-40")).status_code == 404
    assert list(service.vllm.adapters) == [f"{model}:ckpt-step-30"]


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
    service: ServiceUnderTest, config: dict[str, Any], says: str
) -> None:
    model = await add_trained(service.objects, config=config)

    answer = await service.chat(model)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "model_not_servable"
    assert says in answer.json()["error"]["message"]
    assert service.vllm.loads == []


async def test_pickles_are_never_given_to_vllm(service: ServiceUnderTest) -> None:
    files = {"adapter_config.json": b"{}", "adapter_model.bin": b"\x80\x04"}
    model = await add_trained(service.objects, files=files)

    answer = await service.chat(model)

    assert answer.status_code == 400
    assert "adapter_model.bin" in answer.json()["error"]["message"]
    assert list(service.folder.rglob("*.bin")) == []


async def test_a_model_of_another_base_is_refused(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, base="other/base")

    answer = await service.chat(model)

    assert answer.status_code == 400
    assert "other/base" in answer.json()["error"]["message"] and BASE in answer.json()["error"]["message"]


async def test_a_damaged_adapter_is_never_given_to_vllm(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    weights = next(key for key in service.objects.held if key.endswith("adapter_model.safetensors"))
    await service.objects.put(weights, b"something else")

    answer = await service.chat(model)

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "adapter_unusable")
    assert service.vllm.loads == []


async def test_a_failed_load_is_tried_again_by_the_next_request(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    service.objects.available = False
    assert (await service.chat(model)).status_code == 503

    service.objects.available = True

    assert (await service.chat(model)).status_code == 200


async def test_the_least_recently_used_make_room(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with running_service(tmp_path, objects, clock, vllm={"max_loras": 1}) as service:  # four are held
        models = [await add_trained(objects, f"job {number}") for number in range(5)]
        for model in [*models[:4], models[0], models[4]]:
            assert (await service.chat(model)).status_code == 200

        assert (await service.chat(models[0])).status_code == 200

        assert service.vllm.unloads == [models[1]]
        assert sorted(service.vllm.adapters) == sorted(set(models) - {models[1]})


async def test_a_model_in_use_is_not_unloaded(tmp_path: Path, objects: FakeStore, clock: Clock) -> None:
    async with running_service(tmp_path, objects, clock, vllm={"max_loras": 1}) as service:
        models = [await add_trained(objects, f"job {number}") for number in range(6)]
        service.vllm.rest.clear()
        body = {"model": models[0], "messages": [], "stream": True}
        async with service.http.stream("POST", "/v1/chat/completions", json=body) as response:
            chunks = response.aiter_raw()
            await anext(chunks)
            for model in models[1:]:
                await service.chat(model)

            assert models[0] in service.vllm.adapters
            assert service.vllm.unloads == models[1:3]
