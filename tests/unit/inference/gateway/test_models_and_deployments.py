"""Lists of models, aliases, and deployments by hand."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from cli.client import Client
from cli.target import Target
from shared.settings import BusSettings, StoreSettings
from tests.support.data.trained_models import BASE, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import KEY, ServiceUnderTest, running_service


async def test_models_are_the_base_the_tuned_newest_first_and_the_aliases(service: ServiceUnderTest) -> None:
    old = await add_trained(service.objects, "old", finished_at=1000)
    new = await add_trained(service.objects, "new", finished_at=2000)
    await add_trained(service.objects, "elsewhere", base="other/base")
    await service.http.post("/deployments/support", json={"model": old})

    models = [model async for model in service.client.models.list()]

    assert [model.id for model in models] == [BASE, new, old, "support"]
    assert models[1].created == 2000
    assert models[1].object == "model"


@pytest.mark.parametrize("path", [BASE, BASE.replace("/", "%2F")])
async def test_a_model_with_a_slash_can_be_retrieved(service: ServiceUnderTest, path: str) -> None:
    answer = await service.http.get(f"/v1/models/{path}")

    assert answer.json()["id"] == BASE


@pytest.mark.parametrize(("sequences", "room"), [(256, 128), (1000, 128), (20, 10), (1, 1), (None, None)])
async def test_the_base_says_how_many_requests_that_can_wait_leave_room_for_others(
    tmp_path: Path, objects: FakeStore, clock: Clock, sequences: int | None, room: int | None
) -> None:
    async with running_service(tmp_path, objects, clock, vllm={"max_num_seqs": sequences}) as service:
        card = (await service.http.get(f"/v1/models/{BASE}")).json()
        listed = (await service.http.get("/v1/models")).json()["data"][0]

    assert card.get("background_requests") == listed.get("background_requests") == room


async def test_a_tuned_model_and_an_alias_can_be_retrieved(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.http.post("/deployments/support", json={"model": model})

    assert (await service.client.models.retrieve(model)).id == model
    alias = (await service.http.get("/v1/models/support")).json()

    assert (alias["id"], alias["root"]) == ("support", model)
    assert (await service.http.get("/v1/models/nothing")).json()["error"]["code"] == "model_not_found"


async def test_an_alias_answers_with_the_immutable_id_of_its_current_version(service: ServiceUnderTest) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")
    await service.http.post("/deployments/support", json={"model": first})
    before = await service.chat("support")

    await service.http.post("/deployments/support", json={"model": second})
    after = await service.chat("support")

    assert [before.json()["model"], after.json()["model"]] == [first, second]
    assert after.headers["x-tunestream-model"] == second
    assert after.headers["x-tunestream-alias"] == "support"
    assert service.vllm.asked[-1]["model"] == second


async def test_rolling_back_is_one_call(service: ServiceUnderTest) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")
    for model in (first, second):
        await service.http.post("/deployments/support", json={"model": model})

    back = (await service.http.post("/deployments/support/rollback")).json()
    served = (await service.chat("support")).json()["model"]

    assert (back["current"]["model"], back["previous"]["model"], served) == (first, second, first)


async def test_there_is_nothing_to_roll_back_to_after_one_version(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.http.post("/deployments/support", json={"model": model})

    answer = await service.http.post("/deployments/support/rollback")

    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_previous_version")
    assert (await service.http.get("/deployments/support")).json()["current"]["model"] == model


async def test_an_alias_can_be_pointed_at_the_base_or_at_what_another_names(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.http.post("/deployments/blue", json={"model": model})

    await service.http.post("/deployments/green", json={"model": "blue"})
    assert (await service.chat("green")).json()["model"] == model
    await service.http.post("/deployments/green", json={"model": BASE})
    assert (await service.chat("green")).json()["model"] == BASE

    listed = (await service.http.get("/deployments")).json()["data"]
    assert {each["alias"]: each["current"]["model"] for each in listed} == {"blue": model, "green": BASE}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/deployments/support", {"model": "nothing"}, 404, "model_not_found"),
        ("/deployments/support", {}, 400, "missing_required_parameter"),
        ("/deployments/support", {"modle": "x", "model": "y"}, 400, "unknown_parameter"),
        ("/deployments/-support", {"model": BASE}, 400, "invalid_alias"),
        ("/deployments/ft:a:b", {"model": BASE}, 400, "invalid_alias"),
        ("/deployments/nothing/rollback", None, 404, "alias_not_found"),
    ],
)
async def test_a_wrong_deployment_is_refused(
    service: ServiceUnderTest, path: str, body: dict[str, str] | None, status: int, code: str
) -> None:
    answer = await service.http.post(path, json=body)

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert not [key for key in service.objects.held if key.startswith("deployments/")]


async def test_an_unknown_alias_is_not_a_deployment(service: ServiceUnderTest) -> None:
    answer = await service.http.get("/deployments/nothing")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "alias_not_found")


async def test_the_promotion_of_another_replica_is_seen_after_a_second(service: ServiceUnderTest) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")
    await service.http.post("/deployments/support", json={"model": first})
    assert (await service.chat("support")).json()["model"] == first
    data, _ = await service.objects.get("deployments/support.json") or (b"", "")
    await service.objects.put("deployments/support.json", data.replace(first.encode(), second.encode()))

    async def seen() -> bool:
        return bool((await service.chat("support")).json()["model"] == second)

    await until(seen, "the promotion is seen", 10)


@pytest.mark.parametrize("alias", ["客服-对话", "поддержка", "हिन्दी", "café"])
async def test_an_alias_of_any_script_is_deployed_asked_listed_and_rolled_back(
    service: ServiceUnderTest, alias: str
) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")
    path = f"/deployments/{quote(alias)}"
    for model in (first, second):
        answer = await service.http.post(path, json={"model": model})
        assert (answer.status_code, answer.json()["alias"]) == (200, alias)

    asked = await service.chat(alias)

    assert asked.json()["model"] == second
    assert asked.headers["x-tunestream-alias"] == quote(alias)
    assert [key for key in service.objects.held if key.startswith("deployments/")] == [f"deployments/{alias}.json"]
    assert (await service.http.get(path)).json()["current"]["model"] == second
    assert (await service.http.get(f"/v1/models/{quote(alias)}")).json()["id"] == alias
    assert (await service.client.models.retrieve(alias)).id == alias
    assert alias in [model.id async for model in service.client.models.list()]
    created = await service.client.chat.completions.create(model=alias, messages=[{"role": "user", "content": "hi"}])
    assert created.model == second
    assert (await service.http.post(f"{path}/rollback")).json()["current"]["model"] == first


async def test_an_alias_is_found_however_it_is_spelled(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.http.post(f"/deployments/{quote('Café')}", json={"model": model})

    for spelled in ("café", "cafe\u0301", "CAFÉ"):
        answer = await service.chat(spelled)
        assert answer.json()["model"] == model
        assert answer.headers["x-tunestream-alias"] == "caf%C3%A9"


async def test_the_command_line_deploys_and_rolls_back_an_alias_of_any_script(
    service: ServiceUnderTest,
) -> None:
    first, second = await add_trained(service.objects, "1"), await add_trained(service.objects, "2")
    url = str(service.http.base_url).rstrip("/")
    target = Target(url, url, KEY, StoreSettings(), BusSettings(), BASE)

    def by_hand() -> list[str]:
        with Client(target, httpx.HTTPTransport(verify=False)) as client:
            client.deploy(first, "客服")
            client.deploy(second, "客服")
            back = client.rollback("客服")
            return [back["current"]["model"], *(each["alias"] for each in client.deployments())]

    assert await asyncio.to_thread(by_hand) == [first, "客服"]


@pytest.mark.parametrize("harm", ["damaged", "a loss that is null", "an event of the future"])
async def test_a_result_or_an_alias_that_cannot_be_read_does_not_hide_the_others(
    service: ServiceUnderTest, harm: str
) -> None:
    good, bad = await add_trained(service.objects, "good"), await add_trained(service.objects, "bad")
    await service.http.post("/deployments/support", json={"model": good})
    key = f"jobs/{job_id('bad')}/trainer/result.json"
    found = await service.objects.get(key)
    assert found is not None
    result = json.loads(found[0])
    if harm == "a loss that is null":
        result["event"]["data"]["train_loss"] = None
    result["event"]["topic"] = "of.the.future" if harm == "an event of the future" else result["event"]["topic"]
    await service.objects.put(key, b"{" if harm == "damaged" else json.dumps(result).encode())
    await service.objects.put("deployments/broken.json", b"{")

    models = await service.http.get("/v1/models")

    assert [card["id"] for card in models.json()["data"]] == [BASE, good, "support"]
    assert [each["alias"] for each in (await service.http.get("/deployments")).json()["data"]] == ["support"]
    assert (await service.http.get(f"/v1/models/{bad}")).status_code == 404
    assert (await service.chat(bad)).status_code == 404
