"""The types of the stage protocol: a stage, and one attempt at it. See docs/architecture.md, "The stage protocol".

`runner.py` runs the protocol, and `lease.py` gives each attempt its number. They know only a ledger, a publisher and a
clock, so that `tests/sim` can run them with crashes at every point. Each stage of a job has these objects:

    request.json    the event that asked for the stage                       create-once
    claim.json      a lease: owner, attempt, expiry                          create-once, then compare-and-swap
    attempt-N/      what attempt N wrote; an attempt whose lease was lost cannot overwrite what its successor writes
    result.json     the commit point, and the event to publish               create-once
    decision.json   whether a cancel came before the point of no return      create-once, only where one of both came
    published.json  the event went out; while it is missing, the runner publishes again
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from shared.events import (
    NEXT_STAGE,
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
from shared.stages.ledger import attempt_prefix


@dataclass(frozen=True)
class Stage:
    """`asked_by` is the event that asks for the stage; `upstream` is the stage that sends this event as its result."""

    name: StageName
    asked_by: type[Event]
    upstream: StageName


_ASKED_BY: tuple[type[Event], ...] = (DatasetUploaded, DatasetValidated, TrainingCompleted, EvalCompleted)
STAGES: dict[StageName, Stage] = {
    name: Stage(name, asked_by, upstream)
    for (upstream, name), asked_by in zip(NEXT_STAGE.items(), _ASKED_BY, strict=True)
}


async def _always() -> None:
    """The answer of an attempt without a lease, as tests make it."""


def _never() -> bool:
    """The answer of an attempt that nobody else can take over."""
    return False


@dataclass(frozen=True)
class Attempt:
    """One attempt at one stage of one job, as the work gets it.

    `request` is the data of the event that asked for the stage. The work writes below `prefix` only. `earlier` are the
    prefixes of the earlier attempts, newest first, where checkpoints may be.
    """

    job: Job
    request: dict[str, Any]
    stage: StageName
    number: int
    prefix: str
    _publish_progress: Callable[[JobProgress], Awaitable[None]] = field(repr=False)
    _certain: Callable[[], Awaitable[None]] = field(default=_always, repr=False)
    _abandoned: Callable[[], bool] = field(default=_never, repr=False)
    _go_on: Callable[[], Awaitable[None]] = field(default=_always, repr=False)

    @property
    def earlier(self) -> tuple[str, ...]:
        return tuple(attempt_prefix(self.job.job_id, self.stage, number) for number in range(self.number - 1, 0, -1))

    async def certain(self) -> None:
        """Return as soon as it is certain that this attempt still has the claim. While the store gives no answer, the
        claim may be another's already; then this waits. The work awaits it before anything that others see, such as the
        loading of an adapter or the move of an alias; writing below `prefix` needs no certainty."""
        await self._certain()

    async def point_of_no_return(self) -> None:
        """Return if the stage is to be completed, whatever its user asks for later: no attempt at it obeys a cancel or
        a pause from then on. The work awaits it, instead of `certain`, before it does what it cannot undo.

        Raises:
            Cancelled, Paused: the user was first.
            TransientError: the ledger does not answer.
        """
        await self._go_on()
        await self._certain()

    @property
    def abandoned(self) -> bool:
        """Whether nobody wants what this attempt would still do: its claim is lost, or the user has cancelled the job.
        A work that is cancelled looks here: if so, it stops within a second; if not, the service stops, or the user has
        paused the job, and what was reached may be kept for the next attempt first."""
        return self._abandoned()

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
        """Publish `job.progress`. Never raises because the bus is away."""
        await self._publish_progress(
            JobProgress(
                job_id=self.job.job_id,
                stage=self.stage,
                state=state,
                attempt=self.number,
                message=message,
                step=step,
                total_steps=total_steps,
                eta_seconds=eta_seconds,
                data=data or {},
            )
        )


Work = Callable[[Attempt], Awaitable[Event]]
