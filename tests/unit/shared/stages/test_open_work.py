"""After a job has failed in one stage, later stages stop looking at it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.events import JobFailed
from shared.settings import StageSettings
from shared.stages import outbox
from shared.stages.ledger import stage_prefix
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES, Attempt
from tests.support.data.trained_models import add_job
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until


async def never(attempt: Attempt) -> Any:
    raise AssertionError("nobody asked")


def looks(objects: FakeStore, prefix: str) -> int:
    """How often `prefix` was listed."""
    return sum(name in ("list", "folders") and key == prefix for name, key in objects.calls)


@pytest.mark.parametrize("stage", ["trainer", "evaluator", "inference"])
async def test_a_job_that_failed_in_validation_is_looked_at_once(stage: Any) -> None:
    objects = FakeStore()
    job = await add_job(objects)
    failed = JobFailed(job_id=job.job_id, stage="validate", code="invalid_training_file", message="Line 3 …")
    await outbox.commit(objects, outbox.result_of(job.job_id, "validate", 1, "me", "failed", failed, 0.0))
    runner = StageRunner(
        STAGES[stage],
        never,
        ledger=objects,
        bus=FakeBus(),
        owner="me",
        settings=StageSettings(poll_seconds=0.01, discover_seconds=0.01),
    )
    running = asyncio.create_task(runner.run())
    await until(lambda: looks(objects, "jobs/") >= 5, "the jobs are listed five times")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert looks(objects, stage_prefix(job.job_id, stage)) == 1
