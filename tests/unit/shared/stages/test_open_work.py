"""A stage looks at open jobs only, however many others there are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shared.events import JobFailed, StageOutcome
from shared.settings import StageSettings
from shared.stages import outbox, pending
from shared.stages.ledger import pending_prefix, published_key, result_key, stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.support.data.trained_models import add_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until


async def never(attempt: Attempt) -> Any:
    raise AssertionError("nobody asked")


@asynccontextmanager
async def running(objects: FakeStore, stage: Any) -> AsyncIterator[None]:
    settings = StageSettings(poll_seconds=0.01, discover_seconds=0.01)
    runner = StageRunner(STAGES[stage], never, ledger=objects, bus=FakeBus(), owner="me", settings=settings)
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def calls_of(objects: FakeStore, prefix: str) -> int:
    return sum(key.startswith(prefix) for _, key in objects.calls)


async def failed(objects: FakeStore, stage: Any, outcome: StageOutcome = "failed") -> str:
    job = await add_job(objects)
    event = JobFailed(job_id=job.job_id, stage=stage, code="invalid_training_file", message="Line 3 …")
    await outbox.commit(objects, outbox.result_of(job.job_id, stage, 1, "me", outcome, event, 0.0))
    return job.job_id


@pytest.mark.parametrize("stage", ["trainer", "evaluator", "inference"])
async def test_no_later_stage_looks_at_a_job_that_failed(stage: Any) -> None:
    objects = FakeStore()
    await failed(objects, "validate")
    objects.calls.clear()
    async with running(objects, stage):
        await until(lambda: calls_of(objects, "pending/") >= 5, "open work is listed five times")
    assert calls_of(objects, "jobs/") == 0


async def test_the_entry_of_a_job_whose_event_is_out_is_deleted() -> None:
    objects = FakeStore()
    job = await failed(objects, "trainer")
    await objects.create(published_key(job, "trainer"), b"{}")
    await pending.add(objects, "trainer", job, 5.0)
    async with running(objects, "trainer"):
        await until(lambda: not entries(objects), "the entry is deleted")


async def test_the_entry_of_a_job_that_an_earlier_stage_ended_is_deleted() -> None:
    objects = FakeStore()
    job = await failed(objects, "validate", "cancelled")
    await pending.add(objects, "trainer", job, 5.0)
    async with running(objects, "trainer"):
        await until(lambda: not entries(objects), "the entry is deleted")


async def test_an_entry_without_a_job_is_deleted() -> None:
    objects = FakeStore()
    await pending.add(objects, "trainer", "ftjob-" + "0" * 24, 5.0)
    async with running(objects, "trainer"):
        await until(lambda: not entries(objects), "the entry is deleted")


async def test_a_result_whose_owner_died_before_it_entered_the_next_stage_is_entered_and_published() -> None:
    objects = FakeStore()
    job = await add_job(objects)
    event = JobFailed(job_id=job.job_id, stage="trainer", code="c", message="m")  # stands for any event
    result = outbox.result_of(job.job_id, "trainer", 1, "dead", "completed", event, 7.0)
    await objects.create(result_key(job.job_id, "trainer"), result.model_dump_json().encode())
    await pending.add(objects, "trainer", job.job_id, 5.0)
    async with running(objects, "trainer"):
        await until(lambda: published_key(job.job_id, "trainer") in objects.held, "it is published")
        await until(lambda: not entries(objects), "the entry is deleted")
    assert list(await pending.read(objects, "evaluator")) == [job.job_id]
    assert stage_prefix(job.job_id, "trainer") + "claim.json" not in objects.held


def entries(objects: FakeStore) -> list[str]:
    return [key for key in objects.held if key.startswith(pending_prefix("trainer"))]
