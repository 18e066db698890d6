"""A job and an attempt at one of its stages, for tests of what a stage does."""

from __future__ import annotations

from typing import Any

from shared.events import Job, JobProgress, Reference
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


def make_attempt(
    job: Job, stage: str, *, number: int = 1, request: dict[str, Any] | None = None
) -> tuple[Attempt, list[JobProgress]]:
    """An attempt, and the list to which it adds the progress that it publishes."""
    progress: list[JobProgress] = []

    async def publish(event: JobProgress) -> None:
        progress.append(event)

    return Attempt(job, request or {}, stage, number, attempt_prefix(job.job_id, stage, number), publish), progress
