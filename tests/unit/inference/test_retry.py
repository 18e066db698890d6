"""A retry that begins after the training: its model is the adapter of the parent, under an id of its own."""

from __future__ import annotations

import dataclasses

from shared.events import Job, ModelDeployed, Retry, TrainingCompleted
from shared.stages import outbox
from shared.stages.adoption import adopt, retry_of
from shared.stages.ledger import job_key
from tests.support.data.trained_models import add_trained, job_id
from tests.support.fakes.store import FakeStore
from tests.unit.inference.conftest import ServiceUnderTest
from tests.unit.inference.test_work import attempt


async def retry(objects: FakeStore) -> Job:
    """The job `one` begins again from the deployment, and has adopted everything before that."""
    evaluated = await attempt(objects)
    parent = evaluated.job
    asked = Retry(parent_job=parent.job_id, from_stage="inference", rerun=1, at=2000.0, traceparent=parent.traceparent)
    job = retry_of(parent, asked, parent.traceparent)
    await objects.create(job_key(job.job_id), job.model_dump_json().encode())
    await adopt(objects, job, "trainer", "test")
    return job


async def test_the_model_of_a_retry_is_served_from_the_adapter_of_its_parent(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects, checkpoint=5)
    job = await retry(service.objects)
    before = set(service.objects.held)

    assert (await service.chat(job.model)).json()["model"] == job.model
    assert (await service.chat(f"{job.model}:ckpt-step-5")).status_code == 200
    assert (await service.chat(model)).json()["model"] == model

    assert set(service.objects.held) == before, "nothing was copied"
    adopted = await outbox.read(service.objects, job.job_id, "trainer")
    assert adopted is not None
    event = adopted.event.event()
    assert isinstance(event, TrainingCompleted)
    assert event.adapter.prefix.startswith(f"jobs/{job_id('one')}/trainer/")
    listed = [each["id"] for each in (await service.http.get("/v1/models")).json()["data"]]
    assert {model, job.model} <= set(listed)


async def test_a_retry_moves_the_alias_to_its_own_model(service: ServiceUnderTest) -> None:
    model = await add_trained(service.objects)
    first = await service.work(await attempt(service.objects))
    job = await retry(service.objects)
    asked = await attempt(service.objects)
    request = {**asked.request, "job_id": job.job_id, "model": job.model}

    event = await service.work(dataclasses.replace(asked, job=job, request=request))

    assert isinstance(first, ModelDeployed) and isinstance(event, ModelDeployed)
    assert (event.model, event.previous, event.alias) == (job.model, model, first.alias)
    assert (await service.chat("support")).json()["model"] == job.model
