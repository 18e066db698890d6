"""Finds the job of a model by the model's id, from the ledger alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.registry.trained import TrainedModels
from shared import ids
from shared.events import JobFailed
from shared.ids import tuned_name
from shared.stages import outbox
from tests.support.data.trained_models import add_trained, job_id, model_id
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore


@pytest.fixture
def trained(objects: FakeStore, clock: Clock) -> TrainedModels:
    return TrainedModels(objects, timer=clock)


async def test_jobs_whose_ids_begin_alike_are_told_apart(trained: TrainedModels, objects: FakeStore) -> None:
    model = await add_trained(objects)
    twin = f"{job_id('one')[:14]}{'z' * 16}"
    data, _ = await objects.get(f"jobs/{job_id('one')}/trainer/result.json") or (b"", "")
    await objects.create(f"jobs/{twin}/trainer/result.json", data.replace(b":support:", b":other:"))

    first, second = await trained.find(model), await trained.find(model.replace(":support:", ":other:"))

    assert first is not None and first.model == model
    assert second is not None and ":other:" in second.model
    assert await trained.find(model.replace(":support:", ":third:")) is None


async def test_a_job_that_failed_has_no_model(trained: TrainedModels, objects: FakeStore) -> None:
    job = job_id("failed")
    event = JobFailed(job_id=job, stage="trainer", code="x", message="y")
    await outbox.commit(objects, outbox.result_of(job, "trainer", 1, "test", "failed", event, 1.0))

    assert await trained.find(model_id(job)) is None
    assert await trained.all() == []


async def test_a_job_that_ends_later_is_found_then(trained: TrainedModels, objects: FakeStore, clock: Clock) -> None:
    model = model_id(job_id("one"))
    assert await trained.find(model) is None

    await add_trained(objects)
    clock.now += 1.1

    assert await trained.find(model) is not None


async def test_what_was_found_is_not_read_again(trained: TrainedModels, objects: FakeStore) -> None:
    model = await add_trained(objects)
    await trained.find(model)
    objects.calls.clear()

    assert await trained.find(model) is not None
    assert [call for call in objects.calls if call[0] == "get"] == []


async def test_asking_again_for_an_unknown_model_calls_the_store_once(
    trained: TrainedModels, objects: FakeStore
) -> None:
    for _ in range(100):
        await trained.find("ft:tiny-base:tunestream:x:aaaaaaaa")

    assert len(objects.calls) == 1


@given(st.text(), st.text(min_size=1), st.text(), st.integers(0, 10**9 - 1))
def test_every_id_that_is_made_can_be_read(suffix: str, organization: str, base: str, step: int) -> None:
    job = f"ftjob-{ids.derive(suffix)}"
    model = ids.model_id(job, base or "b", organization, suffix)
    name = tuned_name(model)
    checkpoint = tuned_name(f"{model}:ckpt-step-{step}")

    if name is None:
        assert ids.slug((base or "b").rsplit("/", 1)[-1]) == ""  # a base whose name has no letter at all
    else:
        assert checkpoint is not None
        assert (name.model, job.startswith(f"ftjob-{name.job_prefix}"), name.step) == (model, True, None)
        assert (checkpoint.model, checkpoint.step) == (model, step)
