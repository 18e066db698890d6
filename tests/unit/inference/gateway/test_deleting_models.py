"""A tuned model that was deleted does not exist any more, for anybody; and what is needed is not deleted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from services.inference.registry import watched
from shared.access.tuned_models import is_deleted
from shared.events import JobProgress, StageResult, Tombstone
from shared.stages import outbox
from shared.stages.ledger import result_key
from tests.support.data.trained_models import BASE, add_adapter, add_trained, job_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.inference.conftest import ServiceUnderTest, running_service

STEP = 4


async def end(objects: FakeStore, name: str, outcome: str = "completed") -> None:
    """Let the job named `name` come to its end."""
    job = job_id(name)
    event = JobProgress(job_id=job, stage="inference", state="not_promoted", message="")
    await outbox.commit(objects, outbox.result_of(job, "inference", 1, "test", outcome, event, 1000.0))  # type: ignore[arg-type]


async def add_ended(objects: FakeStore, name: str = "one", **more: Any) -> str:
    model = await add_trained(objects, name, **more)
    await end(objects, name)
    return model


def stones(objects: FakeStore) -> dict[str, str]:
    """Prefix by name of every tombstone of a model."""
    start = "deleted/models/"
    found = {key: held.data for key, held in objects.held.items() if key.startswith(start)}
    return {
        key.removeprefix(start).removesuffix(".json"): Tombstone.model_validate_json(data).prefix
        for key, data in found.items()
    }


async def gone(service: ServiceUnderTest, model: str) -> bool:
    """Whether no route knows it."""
    answers = [
        await service.chat(model),
        await service.http.get(f"/v1/models/{model}"),
        await service.http.delete(f"/v1/models/{model}"),
        await service.http.post("/deployments/another", json={"model": model}),
    ]
    errors = {(answer.status_code, answer.json().get("error", {}).get("code")) for answer in answers}
    listed = [card["id"] for card in (await service.http.get("/v1/models")).json()["data"]]
    return errors == {(404, "model_not_found")} and model not in listed


@pytest.fixture
async def replicas(
    tmp_path: Path, objects: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[ServiceUnderTest]]:
    """Two of them, which ask for news at every request."""
    monkeypatch.setattr(watched, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(watched, "STALE_SECONDS", 0.0)
    async with (
        running_service(tmp_path / "one", objects, clock) as one,
        running_service(tmp_path / "two", objects, clock) as two,
    ):
        yield [one, two]


async def test_the_official_client_deletes_a_model_at_once(service: ServiceUnderTest) -> None:
    model = await add_ended(service.objects, checkpoint=STEP)
    checkpoint = f"{model}:ckpt-step-{STEP}"
    for name in (model, checkpoint):
        assert (await service.chat(name)).status_code == 200

    answer = await service.client.models.delete(model)

    assert (answer.id, answer.deleted, answer.object) == (model, True, "model")
    assert await gone(service, model)
    assert (await service.chat(checkpoint)).status_code == 200, "a checkpoint is a model of its own"
    assert stones(service.objects) == {job_id("one"): f"jobs/{job_id('one')}/trainer/attempt-1/adapter/"}
    assert await is_deleted(service.objects, job_id("one")) and not await is_deleted(service.objects, job_id("one"), 4)
    await until(lambda: model not in service.vllm.adapters, "vLLM has unloaded it")
    with pytest.raises(openai.NotFoundError):
        await service.client.models.delete(model)


async def test_a_checkpoint_is_deleted_alone(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, checkpoint=STEP)  # the job is still under way
    checkpoint = f"{model}:ckpt-step-{STEP}"

    assert (await service.http.delete(f"/v1/models/{checkpoint}")).json()["deleted"] is True

    assert await gone(service, checkpoint)
    assert (await service.chat(model)).status_code == 200
    prefix = f"jobs/{job_id('one')}/trainer/attempt-1/checkpoints/step-{STEP}/"
    assert stones(service.objects) == {f"{job_id('one')}-ckpt-step-{STEP}": prefix}


async def test_another_replica_obeys_although_it_has_served_the_model(replicas: list[ServiceUnderTest]) -> None:
    one, two = replicas
    model = await add_ended(one.objects)
    assert (await two.chat(model)).status_code == 200

    await one.http.delete(f"/v1/models/{model}")

    async def obeyed() -> bool:
        return (await two.chat(model)).status_code == 404

    assert await gone(one, model)
    await until(obeyed, "the other replica obeys", 5)
    assert await gone(two, model)


async def test_a_replica_that_starts_later_obeys_and_a_store_that_is_away_changes_nothing(
    tmp_path: Path, objects: FakeStore, clock: Clock
) -> None:
    async with running_service(tmp_path, objects, clock) as first:
        model, other = await add_ended(objects), await add_ended(objects, "two")
        await first.http.delete(f"/v1/models/{model}")
    async with running_service(tmp_path, objects, clock) as second:
        assert (await second.chat(other)).status_code == 200
        assert await gone(second, model)
        objects.available = False
        assert (await second.chat(other)).status_code == 200
        assert (await second.chat(model)).status_code == 404


async def test_a_model_under_an_alias_is_not_deleted(service: ServiceUnderTest) -> None:
    first, second = await add_ended(service.objects, "1"), await add_ended(service.objects, "2")
    await service.http.post("/deployments/support", json={"model": first})

    refused = await service.http.delete(f"/v1/models/{first}")

    error = refused.json()["error"]
    assert (refused.status_code, error["code"], refused.headers["x-should-retry"]) == (400, "model_deployed", "false")
    assert "`support`" in error["message"] and "POST /deployments/support" in error["message"]
    assert (await service.chat("support")).status_code == 200
    await service.http.post("/deployments/support", json={"model": second})
    assert (await service.http.delete(f"/v1/models/{first}")).status_code == 200
    back = await service.http.post("/deployments/support/rollback")
    assert (back.status_code, back.json()["error"]["code"]) == (404, "model_not_found"), "it does not come back"
    assert (await service.chat("support")).json()["model"] == second


async def test_a_model_whose_job_still_needs_it_is_not_deleted(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    refused = await service.http.delete(f"/v1/models/{model}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "job_under_way")
    assert (await service.chat(model)).status_code == 200
    await end(service.objects, "one")
    assert (await service.http.delete(f"/v1/models/{model}")).status_code == 200


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        (BASE, 403, "insufficient_permissions"),
        (BASE.replace("/", "%2F"), 403, "insufficient_permissions"),
        ("support", 400, "not_a_tuned_model"),
        ("nothing", 404, "model_not_found"),
        ("ft:tiny-base:tunestream:x:aaaaaaaa", 404, "model_not_found"),
        ("ft%3Atiny%2Fbase:tunestream:x:aaaaaaaa", 404, "model_not_found"),
    ],
)
async def test_only_tuned_models_are_deleted(service: ServiceUnderTest, name: str, status: int, code: str) -> None:
    await service.http.post("/deployments/support", json={"model": BASE})

    answer = await service.http.delete(f"/v1/models/{name}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert stones(service.objects) == {}


async def test_a_client_that_lost_the_answer_and_asks_again_gets_it(service: ServiceUnderTest) -> None:
    model = await add_ended(service.objects)
    await service.http.delete(f"/v1/models/{model}")

    again = await service.http.delete(f"/v1/models/{model}", headers={"x-stainless-retry-count": "1"})

    assert (again.status_code, again.json()["deleted"]) == (200, True)


async def test_the_bytes_stay_until_the_last_model_that_has_them_is_deleted(service: ServiceUnderTest) -> None:
    """A retry takes over the training of its parent: both have one adapter."""
    shared = await add_adapter(service.objects, f"jobs/{job_id('parent')}/trainer/attempt-1/adapter/")
    parent = await add_ended(service.objects, "parent", adapter=shared)
    retry = await add_ended(service.objects, "retry", adapter=shared)

    await service.http.delete(f"/v1/models/{parent}")

    assert (await service.chat(retry)).status_code == 200
    assert stones(service.objects)[job_id("parent")] == f"jobs/{job_id('parent')}/trainer/attempt-0/adapter/"
    await service.http.delete(f"/v1/models/{retry}")
    assert stones(service.objects)[job_id("retry")] == shared.prefix


async def test_a_store_that_is_away_deletes_nothing_and_says_so(service: ServiceUnderTest) -> None:
    model = await add_ended(service.objects)
    assert (await service.chat(model)).status_code == 200
    service.objects.available = False

    answer = await service.http.delete(f"/v1/models/{model}")

    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service_unavailable")
    service.objects.available = True
    assert (await service.chat(model)).status_code == 200


async def test_a_job_that_failed_after_its_training_leaves_a_model_that_can_be_deleted(
    service: ServiceUnderTest,
) -> None:
    model = await add_trained(service.objects)
    event = JobProgress(job_id=job_id("one"), stage="evaluator", state="cancelled", message="")
    result = outbox.result_of(job_id("one"), "evaluator", 1, "test", "cancelled", event, 1000.0)
    service.objects.add(result_key(job_id("one"), "evaluator"), StageResult.model_dump_json(result).encode())

    assert (await service.http.delete(f"/v1/models/{model}")).status_code == 200
