"""A job, an attempt at one of its stages and the event of its training, for tests of what a stage does."""

from __future__ import annotations

import asyncio
from typing import Any

from shared.events import FolderReference, Job, JobProgress, Overfitting, Reference, TrainingCompleted
from shared.stages.ledger import attempt_prefix
from shared.stages.stage import Attempt

NOWHERE = Reference(bucket="b", key="k", etag="e", size=1, sha256="0" * 64)
"""A reference to no object."""


def make_job(**fields: Any) -> Job:
    """A job with the given fields; the other fields have values that do not matter."""
    usual = {
        "job_id": "ftjob-1",
        "created_at": 0.0,
        "dataset": NOWHERE,
        "spec": {},
        "base": "base",
        "model": "ft:base:org::1",
        "alias": "alias",
        "origin": {},
        "traceparent": "",
    }
    return Job.model_validate(usual | fields)


def make_training(**fields: Any) -> TrainingCompleted:
    """A `training.completed` with the given fields; the other fields have values that do not matter."""
    usual = {
        "job_id": "ftjob-1",
        "model": "ft:base:org::1",
        "base": "base",
        "adapter": FolderReference(bucket="b", prefix="p/", manifest=NOWHERE),
        "rank": 8,
        "steps": 1,
        "epochs": 1,
        "trained_tokens": 1,
        "train_loss": 1.0,
        "overfitting": Overfitting(verdict="healthy", reason="a test"),
    }
    return TrainingCompleted.model_validate(usual | fields)


class FakeClaim:
    """What an attempt is told of its claim: `certain` is awaited by `Attempt.certain`, and counted in `asked`."""

    def __init__(self) -> None:
        self.sure = asyncio.Event()
        self.sure.set()
        self.abandoned = False
        self.asked = 0

    async def certain(self) -> None:
        self.asked += 1
        await self.sure.wait()


def make_attempt(
    job: Job, stage: str, *, number: int = 1, request: dict[str, Any] | None = None, claim: FakeClaim | None = None
) -> tuple[Attempt, list[JobProgress]]:
    """An attempt, and the list to which it adds the progress that it publishes."""
    claim = claim or FakeClaim()
    progress: list[JobProgress] = []

    async def publish(event: JobProgress) -> None:
        progress.append(event)

    prefix = attempt_prefix(job.job_id, stage, number)
    about = (job, request or {}, stage, number, prefix)
    return Attempt(*about, publish, claim.certain, lambda: claim.abandoned), progress
