"""The vocabulary of the stage protocol (DESIGN §3): what a stage is, and what one attempt at it is given.

`shared/runner.py` runs it, `shared/lease.py` keeps attempts apart. All three are pure over a ledger, a bus and a
clock, so that `tests/sim` can run them under a scheduler that crashes them everywhere.

    request.json    the event that asked for the stage                       create-once
    claim.json      a lease: owner, attempt, expiry                          create-once, then compare-and-swap
    attempt-N/      what attempt N wrote; a zombie cannot touch its successor's
    result.json     the commit point, and the event to publish               create-once
    published.json  the event went out; while it is missing, the sweep publishes again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from shared.events import (
    STAGE_NAMES,
    DatasetUploaded,
    DatasetValidated,
    EvalCompleted,
    Event,
    Job,
    JobProgress,
    ProgressState,
    StageName,
    TrainingCompleted,
)
from shared.ledger import attempt_prefix


@dataclass(frozen=True)
class Stage:
    """`asked_by` is the event that asks for the stage, `upstream` the stage whose result is that event."""

    name: StageName
    asked_by: type[Event]
    upstream: StageName


_ASKED_BY: tuple[type[Event], ...] = (DatasetUploaded, DatasetValidated, TrainingCompleted, EvalCompleted)
STAGES: dict[StageName, Stage] = {
    name: Stage(name, asked_by, upstream)
    for (upstream, name), asked_by in zip(pairwise(STAGE_NAMES), _ASKED_BY, strict=True)
}


@dataclass(frozen=True)
class Attempt:
    """One attempt at one stage of one job: what the work is given.

    `request` is the data of the event that asked; everything the work writes goes below `prefix`; `earlier` are the
    prefixes of the attempts before it, newest first, where checkpoints may lie.
    """

    job: Job
    request: dict[str, Any]
    stage: StageName
    number: int
    prefix: str
    _publish_progress: Callable[[JobProgress], Awaitable[None]] = field(repr=False)

    @property
    def earlier(self) -> tuple[str, ...]:
        return tuple(attempt_prefix(self.job.job_id, self.stage, number) for number in range(self.number - 1, 0, -1))

    async def progress(
        self,
        state: ProgressState = "running",
        message: str = "",
        *,
        step: int | None = None,
        total_steps: int | None = None,
        eta_seconds: float | None = None,
        data: dict[str, Any] | None = None,
    ) -> None:
        """Publish `job.progress`; never a reason to fail."""
        await self._publish_progress(
            JobProgress(
                job_id=self.job.job_id,
                stage=self.stage,
                state=state,
                message=message,
                step=step,
                total_steps=total_steps,
                eta_seconds=eta_seconds,
                data=data or {},
            )
        )


Work = Callable[[Attempt], Awaitable[Event]]
