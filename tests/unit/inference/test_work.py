"""The deploying stage: an event in, an event out."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from shared.errors import Cancelled, InputError, TransientError
from shared.events import (
    Deployed,
    Deployment,
    EvalCompleted,
    Event,
    Interval,
    JobProgress,
    ModelDeployed,
    Reference,
    Served,
)
from shared.stages.stage import Attempt
from tests.support.data.jobs import FakeClaim
from tests.support.data.trained_models import BASE, add_job, add_trained, job_id, model_id
from tests.support.fakes.store import FakeStore
from tests.unit.inference.conftest import ServiceUnderTest

REPORT = Reference(bucket="tunestream", key="report.json", etag="e", size=1, sha256="0" * 64)


async def attempt(
    objects: FakeStore,
    name: str = "one",
    *,
    passed: bool = True,
    served: Served | None = None,
    said: list[JobProgress] | None = None,
    claim: FakeClaim | None = None,
    **of_job: Any,
) -> Attempt:
    """`claim`: what it is told of its claim. `said`: the list to which it adds the progress that it publishes."""
    job = await add_job(objects, name, **of_job)
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
        served=served,
    )

    async def publish(progress: JobProgress) -> None:
        if said is not None:
            said.append(progress)

    request: dict[str, Any] = event.model_dump(mode="json")
    certain = (claim or FakeClaim()).certain
    return Attempt(job, request, "inference", 1, f"jobs/{job.job_id}/inference/attempt-1/", publish, certain)


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


async def test_a_cancel_before_the_move_leaves_the_alias_alone(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)

    async def cancelled() -> None:
        raise Cancelled("a test did")

    with pytest.raises(Cancelled):
        await service.work(dataclasses.replace(await attempt(service.objects), _go_on=cancelled))

    assert not [key for key in service.objects.held if key.startswith("deployments/")]


async def test_the_successor_of_an_attempt_that_died_after_the_move_needs_no_vllm(service: ServiceUnderTest) -> None:
    await add_trained(service.objects)
    once = await service.work(await attempt(service.objects))
    service.vllm.healthy = False
    service.work._trial._vllm.suspect()

    assert await service.work(await attempt(service.objects)) == once


@pytest.mark.usefixtures("impatient")
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


# --- an alias that another dataset owns ---------------------------------------------------------------------------

OTHER = {"dataset": Reference(bucket="datasets", key="team-b/train.jsonl", etag="e", size=1, sha256="1" * 64)}


async def two_trained(service: ServiceUnderTest) -> tuple[str, str]:
    """The first is deployed."""
    first, second = await add_trained(service.objects, "one"), await add_trained(service.objects, "two")
    await service.work(await attempt(service.objects, "one"))
    return first, second


async def test_an_alias_of_another_dataset_is_left_alone_and_the_job_says_so(service: ServiceUnderTest) -> None:
    first, second = await two_trained(service)

    event = await service.work(await attempt(service.objects, "two", **OTHER))

    assert isinstance(event, JobProgress)
    assert (event.stage, event.state) == ("inference", "not_promoted")
    for said in ("alias support", "b/k", job_id("one"), second, "`alias: support`"):
        assert said in event.message
    assert event.data == {"model": second, "alias": "support", "owner": job_id("one")}
    assert (await service.chat("support")).json()["model"] == first
    assert (await service.chat(second)).json()["model"] == second


@pytest.mark.parametrize("spec", [{"alias": "support"}, {"suffix": "Support"}])
async def test_a_job_that_names_the_alias_takes_it(service: ServiceUnderTest, spec: dict[str, str]) -> None:
    first, second = await two_trained(service)

    event = await service.work(await attempt(service.objects, "two", **OTHER, spec=spec))

    assert isinstance(event, ModelDeployed)
    assert (event.alias, event.model, event.previous) == ("support", second, first)


async def test_an_alias_that_was_taken_belongs_to_its_new_dataset(service: ServiceUnderTest) -> None:
    await two_trained(service)
    await service.work(await attempt(service.objects, "two", **OTHER, spec={"alias": "support"}))
    for name in ("three", "four"):
        await add_trained(service.objects, name)

    of_first = await service.work(await attempt(service.objects, "three"))
    of_second = await service.work(await attempt(service.objects, "four", **OTHER))

    assert isinstance(of_first, JobProgress) and isinstance(of_second, ModelDeployed)


async def test_the_base_behind_an_alias_does_not_change_its_owner(service: ServiceUnderTest) -> None:
    await two_trained(service)
    await add_trained(service.objects, "three")
    await service.http.post("/deployments/support", json={"model": BASE})

    other = await service.work(await attempt(service.objects, "two", **OTHER))
    same = await service.work(await attempt(service.objects, "three"))

    assert isinstance(other, JobProgress) and isinstance(same, ModelDeployed)


async def test_a_resumed_attempt_of_a_promoted_job_is_not_refused_after_the_alias_was_taken(
    service: ServiceUnderTest,
) -> None:
    await two_trained(service)
    await service.work(await attempt(service.objects, "two", **OTHER, spec={"alias": "support"}))

    again = await service.work(await attempt(service.objects, "one"))

    assert isinstance(again, ModelDeployed)


@pytest.mark.parametrize("settings", [{}, {"alias": "Support"}])
async def test_an_alias_of_an_older_version_keeps_its_upper_case(
    service: ServiceUnderTest, settings: dict[str, str]
) -> None:
    first, second = await add_trained(service.objects, "one"), await add_trained(service.objects, "two")
    job = await add_job(service.objects, "one")
    version = Deployed(model=first, job_id=job.job_id, at=1.0)
    old = Deployment(alias="Support", current=version, history=(version,))
    await service.objects.put("deployments/Support.json", old.model_dump_json().encode())

    event = await service.work(await attempt(service.objects, "two", spec=settings))

    assert isinstance(event, ModelDeployed)
    assert (event.alias, event.previous) == ("Support", first)
    assert (await service.chat("Support")).json()["model"] == second
    assert [key for key in service.objects.held if key.startswith("deployments/")] == ["deployments/Support.json"]


async def test_of_two_aliases_that_differ_in_case_the_one_that_is_named_moves(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    old = Deployed(model=BASE, job_id="", at=1.0)
    for alias in ("Support", "support"):
        document = Deployment(alias=alias, current=old, history=(old,))
        await service.objects.put(f"deployments/{alias}.json", document.model_dump_json().encode())

    event = await service.work(await attempt(service.objects, spec={"alias": "Support"}))

    assert isinstance(event, ModelDeployed) and event.alias == "Support"
    assert (await service.chat("Support")).json()["model"] == model
    assert (await service.chat("support")).json()["model"] == BASE
