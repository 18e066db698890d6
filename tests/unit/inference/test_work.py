"""The deploying stage: an event in, an event out."""

from __future__ import annotations

from typing import Any

import pytest

from shared.errors import InputError, TransientError
from shared.events import EvalCompleted, Event, Interval, JobProgress, ModelDeployed, Reference
from shared.stages.stage import Attempt
from tests.support.data.trained_models import BASE, add_job, add_trained, model_id
from tests.support.fakes.store import FakeStore
from tests.unit.inference.conftest import ServiceUnderTest

REPORT = Reference(bucket="tunestream", key="report.json", etag="e", size=1, sha256="0" * 64)


async def attempt(objects: FakeStore, name: str = "one", *, passed: bool = True) -> Attempt:
    job = await add_job(objects, name)
    event = EvalCompleted(
        job_id=job.job_id,
        model=model_id(job.job_id),
        base=BASE,
        examples=20,
        metric="rouge_l",
        scores={"base": {"rouge_l": 0.1}, "tuned": {"rouge_l": 0.6}},
        delta=Interval(mean=0.5, low=0.4, high=0.6, confidence=0.95),
        passed=passed,
        reasons=("The interval is above 0.",) if passed else ("The interval includes 0.",),
        report=REPORT,
        html=REPORT,
    )

    async def silent(progress: JobProgress) -> None:
        pass

    request: dict[str, Any] = event.model_dump(mode="json")
    return Attempt(job, request, "inference", 1, f"jobs/{job.job_id}/inference/attempt-1/", silent)


async def test_a_model_that_passed_is_loaded_and_behind_its_alias(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    event = await service.work(await attempt(service.objects))

    assert event == ModelDeployed(
        job_id=event.job_id,
        model=model,
        alias="support",
        previous=None,
        endpoint="http://tunestream.test/v1",
    )
    assert service.vllm.loads == [model]
    assert (await service.chat("support")).json()["model"] == model


async def test_the_next_version_names_the_one_it_replaces(service: ServiceUnderTest) -> None:
    first, second = await add_trained(service.objects, "one"), await add_trained(service.objects, "two")
    await service.work(await attempt(service.objects, "one"))

    event = await service.work(await attempt(service.objects, "two"))

    assert isinstance(event, ModelDeployed)
    assert (event.model, event.previous) == (second, first)


async def test_a_model_that_did_not_pass_moves_nothing_but_can_be_called(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)

    event = await service.work(await attempt(service.objects, passed=False))

    assert isinstance(event, JobProgress)
    assert (event.stage, event.state, event.message) == ("inference", "not_promoted", "The interval includes 0.")
    assert (await service.chat("support")).status_code == 404
    assert (await service.chat(model)).status_code == 200


async def test_a_resumed_attempt_does_not_undo_a_later_promotion(service: ServiceUnderTest) -> None:
    await add_trained(service.objects, "one")
    second = await add_trained(service.objects, "two")
    once: Event = await service.work(await attempt(service.objects, "one"))
    await service.work(await attempt(service.objects, "two"))

    again = await service.work(await attempt(service.objects, "one"))

    assert again == once
    assert (await service.chat("support")).json()["model"] == second


async def test_a_resumed_attempt_does_not_undo_a_rollback(service: ServiceUnderTest) -> None:
    first = await add_trained(service.objects, "one")
    await add_trained(service.objects, "two")
    for name in ("one", "two"):
        await service.work(await attempt(service.objects, name))
    await service.http.post("/deployments/support/rollback")

    await service.work(await attempt(service.objects, "two"))

    assert (await service.chat("support")).json()["model"] == first


async def test_without_vllm_the_attempt_is_tried_again_later(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    service.vllm.healthy = False

    with pytest.raises(TransientError):
        await service.work(await attempt(service.objects))

    assert not [key for key in service.objects.held if key.startswith("deployments/")]


async def test_an_adapter_that_cannot_be_served_is_not_promoted(service: ServiceUnderTest) -> None:
    await add_trained(service.objects, config={"use_dora": True})

    with pytest.raises(InputError, match="DoRA"):
        await service.work(await attempt(service.objects))

    assert not [key for key in service.objects.held if key.startswith("deployments/")]
