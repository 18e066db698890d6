"""How a trial stands: what became of its job, by how much its model misses the validation rows, and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field

from services.api.domain.projection import is_number
from services.api.domain.state import JobState
from services.api.domain.sweeps.budget import Spent, unfinished, within
from services.api.domain.sweeps.space import Parameters
from shared.events import Budget, DatasetValidated, FrozenModel, TrainingCompleted, TrainingUsage
from shared.events.limits import ITEMS, Count, Id, JobId, Name, Text

TrialStatus = Literal["queued", "running", "succeeded", "pruned", "failed", "cancelled"]
ENDED: frozenset[TrialStatus] = frozenset({"succeeded", "pruned", "failed", "cancelled"})
TENTHS = 10
"""Trials are compared at tenths of their trainings: their numbers of steps differ with batch size and epochs."""


class Point(FrozenModel):
    """A validation: how much of the training was done, from 0 to 1, and the loss."""

    fraction: float
    valid_loss: float


class Standing(FrozenModel):
    """One line of the table of a sweep."""

    number: Count
    job_id: JobId
    model: Name
    """The id under which its model answers, once it is trained."""
    parameters: Parameters
    status: TrialStatus
    training: bool
    """Whether it still takes the time of a trainer."""
    valid_loss: float | None = None
    """The lowest of a training that was completed."""
    points: Annotated[tuple[Point, ...], Field(max_length=ITEMS)] = ()
    spent: Spent = Spent()
    reason: Text = ""
    """Why it was pruned, or has failed."""
    code: Id = ""
    """Of its failure."""

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    @property
    def fraction(self) -> float:
        """How much of the training was done at the last validation."""
        return self.points[-1].fraction if self.points else 0.0

    def at_tenths(self) -> dict[int, float]:
        """The loss of the last validation before each tenth of the training that is over, by tenth."""
        found: dict[int, float] = {}
        for tenth in range(1, TENTHS + 1):
            before = [point.valid_loss for point in self.points if point.fraction <= tenth / TENTHS + 1e-9]
            if before and self.fraction >= tenth / TENTHS - 1e-9:
                found[tenth] = before[-1]
        return found


def standing(
    number: int,
    parameters: Parameters,
    state: JobState,
    points: Sequence[Point],
    *,
    why_pruned: str | None,
    usages: Sequence[TrainingUsage],
) -> Standing:
    """How the trial stands whose job is `state`. `why_pruned`: None unless it was pruned. `usages`: of other trials."""
    assert state.manifest is not None, "only a job with a manifest is asked for"
    trained = state.event_of(TrainingCompleted)
    outcome, failure = state.final_outcome, state.failure
    status: TrialStatus
    match state.status:
        case "succeeded" | "failed" as ended:
            status = ended
        case "cancelled":
            status = "cancelled" if why_pruned is None else "pruned"
        case "running" | "paused":
            status = "running"
        case _:
            status = "queued"
    reason = why_pruned or "" if status == "pruned" else failure.message if failure and status == "failed" else ""
    return Standing(
        number=number,
        job_id=state.job_id,
        model=state.manifest.model,
        parameters=parameters,
        status=status,
        training=outcome is None and state.stage("trainer").outcome is None,
        valid_loss=trained.valid_loss if trained else None,
        points=tuple(points),
        spent=_spent(state, trained, state.manifest.spec.budget, usages),
        reason=reason,
        code=failure.code if failure and status == "failed" else "",
    )


def _spent(
    state: JobState, trained: TrainingCompleted | None, share: Budget | None, usages: Sequence[TrainingUsage]
) -> Spent:
    if trained is not None:
        return Spent.of(trained.usage) if trained.usage else Spent(seconds=trained.seconds)
    stage, final = state.stage("trainer"), state.final_outcome
    began = stage.started_at if stage.started_at is not None else stage.claimed_at
    if began is None or final is None:
        return Spent()
    validated = state.event_of(DatasetValidated)
    epoch = stage.figures.get("epoch")
    epochs = epoch.value if epoch is not None and is_number(epoch.value) else 0.0
    tokens = epochs * validated.train.tokens if validated else 0.0
    if not epochs and stage.latest.get("step") is None:
        return Spent()  # no step was taken
    return within(unfinished(max(0.0, final.at - began), tokens, usages), share)
