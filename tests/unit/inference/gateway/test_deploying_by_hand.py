"""Deployments and rollbacks by a person: a call can be repeated, nobody is overruled, and no alias moves to a model
that was not loaded and asked first."""

from __future__ import annotations

import shutil
from typing import Any

import httpx
import pytest

from shared.events import Served
from shared.stages import outbox
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.unit.inference.conftest import ServiceUnderTest
from tests.unit.inference.test_work import attempt

ALIAS = "/deployments/support"


async def post(service: ServiceUnderTest, path: str, **body: Any) -> httpx.Response:
    return await service.http.post(path, json=body)


async def three(service: ServiceUnderTest, deployed: int = 2) -> list[str]:
    """Three models, of which the first ones are deployed as `support`, one after another."""
    models = [await add_trained(service.objects, str(number)) for number in range(3)]
    for model in models[:deployed]:
        assert (await post(service, ALIAS, model=model)).status_code == 200
    return models


async def current(service: ServiceUnderTest) -> str:
    return str((await service.http.get(ALIAS)).json()["current"]["model"])


def code(answer: httpx.Response) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["code"] if answer.is_error else None


# --- repeated calls ------------------------------------------------------------------------------------------------


async def test_a_rollback_whose_answer_was_lost_can_be_repeated(service: ServiceUnderTest) -> None:
    first, second, _ = await three(service)

    answers = [await post(service, f"{ALIAS}/rollback", expected=second) for _ in range(3)]

    assert [(answer.status_code, answer.json()["current"]["model"]) for answer in answers] == [(200, first)] * 3
    assert len(answers[-1].json()["history"]) == 3


async def test_a_bare_rollback_that_is_repeated_does_not_bring_the_bad_version_back(service: ServiceUnderTest) -> None:
    first, second, _ = await three(service)

    once, again = [await service.http.post(f"{ALIAS}/rollback") for _ in range(2)]

    assert once.status_code == 200
    assert code(again) == (409, "already_rolled_back")
    assert first in again.json()["error"]["message"] and second in again.json()["error"]["message"]
    assert await current(service) == first


async def test_rolling_back_further_takes_the_version_from_which(service: ServiceUnderTest) -> None:
    first, second, third = await three(service, deployed=3)

    await post(service, f"{ALIAS}/rollback", expected=third)
    further = await post(service, f"{ALIAS}/rollback", expected=second)

    assert further.json()["current"]["model"] == first
    assert code(await post(service, f"{ALIAS}/rollback", expected=first)) == (400, "no_previous_version")


async def test_a_rollback_to_a_named_version_can_be_repeated(service: ServiceUnderTest) -> None:
    first, _, third = await three(service, deployed=3)

    answers = [await post(service, f"{ALIAS}/rollback", to=first, expected=third) for _ in range(2)]

    assert [(answer.status_code, answer.json()["current"]["model"]) for answer in answers] == [(200, first)] * 2


async def test_a_rollback_leads_only_to_what_the_alias_has_named(service: ServiceUnderTest) -> None:
    _, second, third = await three(service)

    assert code(await post(service, f"{ALIAS}/rollback", to=third)) == (400, "not_in_history")
    assert await current(service) == second


async def test_a_deployment_whose_answer_was_lost_can_be_repeated(service: ServiceUnderTest) -> None:
    _, second, third = await three(service)

    answers = [await post(service, ALIAS, model=third, expected=second) for _ in range(2)]

    assert [(answer.status_code, answer.json()["current"]["model"]) for answer in answers] == [(200, third)] * 2


@pytest.mark.parametrize("path", [ALIAS, f"{ALIAS}/rollback"])
async def test_who_came_in_between_is_not_overruled(service: ServiceUnderTest, path: str) -> None:
    first, second, third = await three(service)
    await post(service, ALIAS, model=third)

    named = {"model": first} if path == ALIAS else {"to": first}
    answers = [await post(service, path, **named, expected=second)]
    if path != ALIAS:
        answers.append(await post(service, path, expected=second))

    for answer in answers:
        assert code(answer) == (409, "version_changed")
        assert (answer.json()["error"]["param"], third in answer.json()["error"]["message"]) == ("expected", True)
    assert await current(service) == third


async def test_who_comes_while_the_model_is_loaded_is_not_overruled(
    service: ServiceUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = await three(service)

    async def somebody_else(*_: object) -> str:
        monkeypatch.undo()
        await post(service, ALIAS, model=third)
        return ""

    monkeypatch.setattr(service.work._trial, "_live_check", somebody_else)

    assert code(await post(service, f"{ALIAS}/rollback")) == (409, "version_changed")
    assert await current(service) == third
    assert first != second


async def test_an_alias_that_is_expected_must_be_there(service: ServiceUnderTest) -> None:
    first, second, _ = await three(service, deployed=0)

    assert code(await post(service, ALIAS, model=first, expected=second)) == (409, "version_changed")
    assert (await service.http.get(ALIAS)).status_code == 404


async def test_what_another_replica_did_is_seen_by_who_deploys(service: ServiceUnderTest) -> None:
    first, second, third = await three(service)
    assert (await service.chat("support")).json()["model"] == second  # it is in the memory of this replica
    data, _ = await service.objects.get("deployments/support.json") or (b"", "")
    await service.objects.put("deployments/support.json", data.replace(second.encode(), third.encode()))

    assert await current(service) == third
    assert code(await post(service, ALIAS, model=first, expected=second)) == (409, "version_changed")


# --- loaded and asked first ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", ["deploy", "roll back", "roll back to"])
@pytest.mark.parametrize(
    ("trouble", "status", "says"),
    [
        ("vLLM is away", 503, "service_unavailable"),
        ("the adapter is damaged", 400, "adapter_unusable"),
        ("vLLM refuses it", 400, "adapter_unusable"),
        ("it has no effect", 400, "adapter_without_effect"),
    ],
)
async def test_an_alias_stays_where_it_is_if_the_model_cannot_be_served(
    service: ServiceUnderTest, way: str, trouble: str, status: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good, _ = await three(service)
    if way == "deploy":
        bad = await add_trained(service.objects, "bad")
    service.vllm.adapters.clear()
    service.work._adapters.forget(bad)
    match trouble:
        case "vLLM is away":
            service.vllm.healthy = False
            service.work._trial._vllm.suspect()
        case "the adapter is damaged":
            for folder in service.folder.iterdir():
                shutil.rmtree(folder)
            for key in [key for key in service.objects.held if key.endswith("adapter_model.safetensors")]:
                await service.objects.put(key, b"something else")
        case "vLLM refuses it":

            async def refuse(*_: object) -> tuple[int, str]:
                return 400, "it has another rank"

            monkeypatch.setattr(service.work._trial._vllm, "_post", refuse)
        case "it has no effect":
            service.vllm.effect = False

    path, body = {
        "deploy": (ALIAS, {"model": bad}),
        "roll back": (f"{ALIAS}/rollback", {}),
        "roll back to": (f"{ALIAS}/rollback", {"to": bad}),
    }[way]
    answer = await post(service, path, **body)

    assert code(answer) == (status, says), answer.text
    assert ("retry-after" in answer.headers) == (status == 503)
    assert await current(service) == good


async def test_a_model_is_loaded_when_its_alias_is_deployed(service: ServiceUnderTest) -> None:
    first, second, _ = await three(service)

    assert service.vllm.loads == [first, second]
    assert {body["model"] for body in service.vllm.probed} >= {first, second}


async def test_a_model_for_another_template_is_not_deployed_by_hand(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    key = f"jobs/{job_id('one')}/trainer/result.json"
    result = await outbox.read(service.objects, job_id("one"), "trainer")
    assert result is not None
    data = {**result.event.data, "served": Served(probe="000000000000").model_dump()}
    changed = result.model_copy(update={"event": result.event.model_copy(update={"data": data})})
    await service.objects.put(key, changed.model_dump_json().encode())

    assert code(await post(service, ALIAS, model=model)) == (400, "served_differently")


async def test_an_adapter_that_cannot_be_served_is_refused_with_the_reason(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, config={"use_dora": True})

    answer = await post(service, ALIAS, model=model)

    assert code(answer) == (400, "model_not_servable")
    assert "DoRA" in answer.json()["error"]["message"]


async def test_the_base_needs_no_trial(service: ServiceUnderTest) -> None:
    service.vllm.healthy = False
    service.work._trial._vllm.suspect()

    assert (await post(service, ALIAS, model=BASE)).status_code == 200


async def test_the_alias_of_a_job_is_rolled_back_by_hand(service: ServiceUnderTest) -> None:
    first, second = await add_trained(service.objects, "one"), await add_trained(service.objects, "two")
    for name in ("one", "two"):
        await service.work(await attempt(service.objects, name))

    answer = await post(service, f"{ALIAS}/rollback", expected=second)

    assert (answer.json()["current"]["model"], answer.json()["previous"]["model"]) == (first, second)
