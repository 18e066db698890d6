"""Names of other systems that stand for the base, so that code written for them asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.inference.app import build
from shared.errors import ConfigError
from shared.service import Context
from shared.settings import Settings
from tests.support.data.trained_models import BASE, add_trained
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.unit.inference.conftest import ServiceUnderTest, running_service

FOREIGN = "gpt-4o-mini-2024-07-18"
SETTING = "TUNESTREAM_MODEL__ALIASES"


@pytest.fixture
async def mapped(tmp_path: Path, objects: FakeStore, clock: Clock) -> AsyncIterator[ServiceUnderTest]:
    async with running_service(tmp_path, objects, clock, model={"aliases": {FOREIGN: BASE}}) as opened:
        yield opened


async def test_the_base_can_be_compared_with_the_tuned_model_as_the_guide_does(mapped: ServiceUnderTest) -> None:
    model = await add_trained(mapped.objects)
    hello = [{"role": "user", "content": "hi"}]
    for name in (model, FOREIGN):
        answer = await mapped.client.chat.completions.create(model=name, messages=hello)  # type: ignore[arg-type]
        assert answer.choices[0].message.content == "hello"
    assert mapped.vllm.asked[-1]["model"] == BASE
    card = await mapped.client.models.retrieve(FOREIGN)
    assert (card.id, (card.model_extra or {})["root"]) == (FOREIGN, BASE)
    for project in ({}, {"openai-project": "one"}):
        body = {"model": FOREIGN, "messages": hello}
        assert (await mapped.http.post("/v1/chat/completions", json=body, headers=project)).status_code == 200


async def test_a_mapped_name_is_the_bases_own_and_no_alias(mapped: ServiceUnderTest) -> None:
    deployed = await mapped.http.post(f"/deployments/{FOREIGN}", json={"model": BASE})
    assert (deployed.status_code, deployed.json()["error"]["code"]) == (400, "invalid_alias")
    deleted = await mapped.http.delete(f"/v1/models/{FOREIGN}")
    assert (deleted.status_code, deleted.json()["error"]["code"]) == (403, "insufficient_permissions")


@pytest.mark.parametrize("name", ["gpt-4o-mini-2024-07-18", "gpt-3.5-turbo", "o3-mini", "o1", "davinci-002"])
async def test_a_foreign_name_that_is_not_mapped_is_refused_with_the_setting(
    service: ServiceUnderTest, name: str
) -> None:
    for answer in (await service.chat(name), await service.http.get(f"/v1/models/{name}")):
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (404, "model_not_found", "model")
        assert SETTING in error["message"] and BASE in error["message"]


async def test_a_name_that_only_looks_foreign_is_still_an_alias(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    await service.http.post("/deployments/gpt-4o", json={"model": model})
    assert (await service.chat("gpt-4o")).json()["model"] == model
    assert SETTING not in (await service.chat("orders")).json()["error"]["message"]


def test_a_name_of_a_base_that_is_not_served_ends_the_start(tmp_path: Path) -> None:
    settings = {
        "model": {"id": BASE, "aliases": {FOREIGN: "other/base"}},
        "vllm": {"url": "http://127.0.0.1:1"},
        "inference": {"adapter_dir": tmp_path},
    }
    with pytest.raises(ConfigError, match=f"{SETTING} maps {FOREIGN} to other/base"):
        build(Context(Settings.model_validate(settings), FakeStore(), FakeBus()))
