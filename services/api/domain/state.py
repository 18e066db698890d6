"""The state of a job, in registers that merge. Facts give the same state in any order, also when they repeat.

Every register is a minimum or a maximum over an order that is total, so `project` is commutative, associative and
idempotent (a state-based CRDT, Shapiro et al. 2011, "A comprehensive study of convergent and commutative replicated
data types"). That is what makes lost, late, repeated and reordered events harmless, and a rebuild exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AliasChoices, Field, ValidationError

from shared.events import STAGE_NAMES, Event, EventRecord, FrozenModel, Job, JobFailed, StageName, StageOutcome
from shared.events.limits import Json

E = TypeVar("E", bound=Event)

Status: TypeAlias = Literal["validating_files", "queued", "running", "succeeded", "failed", "cancelled"]
Shown: TypeAlias = Literal["waiting", "running", "retrying", "completed", "failed", "cancelled"]

FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


class Stamped(FrozenModel):
    """A value, its time in seconds since the epoch, and the id of its event. Of two values of one register the later
    one stays."""

    at: float
    id: str
    value: Json


class Outcome(FrozenModel):
    """How a stage ended. `committed`: read from `result.json`, which overrides the topics.

    `attempt` is the attempt that decided, known only when committed. Older databases call it `epoch`.
    """

    ending: StageOutcome
    at: float
    event: EventRecord
    committed: bool = False
    attempt: Annotated[int | None, Field(validation_alias=AliasChoices("attempt", "epoch"))] = None

    @property
    def rank(self) -> tuple[bool, float, str]:
        """Of two outcomes of one stage the lower rank stays: committed first, then the earliest."""
        return (not self.committed, self.at, self.event.id)


class StageState(FrozenModel):
    """One stage. `latest` holds state, message, step, total_steps and eta_seconds; `figures` the data, key by key."""

    started_at: float | None = None
    claimed_at: float | None = None
    """When a live claim was first seen in the ledger. It is the start of the stage if the `started` event got lost."""
    latest: dict[str, Stamped] = Field(default_factory=dict)
    figures: dict[str, Stamped] = Field(default_factory=dict)
    outcome: Outcome | None = None

    @property
    def begun(self) -> bool:
        return self.started_at is not None or self.claimed_at is not None or self.outcome is not None

    def value(self, field: str) -> Any:
        stamped = self.latest.get(field)
        return stamped.value if stamped else None


def _event(record: EventRecord) -> Event | None:
    """None: another version wrote it, or it is damaged. Then the stage has its ending, but no details."""
    try:
        return record.event()
    except (ValidationError, KeyError):
        return None


class JobState(FrozenModel):
    """One job. `manifest` is None until `job.json` was read; until then the job is not shown."""

    job_id: str
    manifest: Job | None = None
    stages: dict[str, StageState] = Field(default_factory=dict)
    """The stages by name. A later version may send stages that this one does not know."""

    def stage(self, name: str) -> StageState:
        return self.stages.get(name) or StageState()

    def outcomes(self) -> Iterator[Outcome]:
        """The outcomes that are known, in the order of the stages; those of unknown stages come last."""
        for name in (*STAGE_NAMES, *sorted(self.stages.keys() - set(STAGE_NAMES))):
            if outcome := self.stage(name).outcome:
                yield outcome

    def event_of(self, kind: type[E]) -> E | None:
        """The event of this kind among the outcomes of the stages."""
        for outcome in self.outcomes():
            if outcome.event.topic == kind.topic and isinstance(event := _event(outcome.event), kind):
                return event
        return None

    @property
    def visible(self) -> bool:
        return self.manifest is not None

    @property
    def created_at(self) -> float:
        return self.manifest.created_at if self.manifest else 0.0

    @property
    def final_outcome(self) -> Outcome | None:
        """The outcome of the stage that ended the job; None while the job is under way."""
        last = self.stage("inference").outcome
        if last and last.ending == "completed":
            return last
        return next((outcome for outcome in self.outcomes() if outcome.ending != "completed"), None)

    @property
    def status(self) -> Status:
        if outcome := self.final_outcome:
            return "succeeded" if outcome.ending == "completed" else outcome.ending
        after_validation = STAGE_NAMES[STAGE_NAMES.index("trainer") :]
        if any(self.stage(name).begun for name in after_validation):
            return "running"
        return "queued" if self.stage("validate").outcome else "validating_files"

    @property
    def settled(self) -> bool:
        """Whether the job has ended according to the ledger, so that its state cannot change any more."""
        return self.manifest is not None and self.final_outcome is not None and self.final_outcome.committed

    @property
    def failure(self) -> JobFailed | None:
        outcome = self.final_outcome
        if outcome is None or outcome.ending == "completed":
            return None
        event = _event(outcome.event)
        if isinstance(event, JobFailed):
            return event
        message = "The job ended, and the reason cannot be read: another version wrote it, or it is damaged."
        return JobFailed(job_id=self.job_id, stage="unknown", code="unreadable", message=message)

    def shown(self, name: StageName) -> Shown:
        """The state of a stage as a user sees it."""
        stage = self.stage(name)
        if stage.outcome:
            return stage.outcome.ending
        if any(self.stage(later).begun for later in STAGE_NAMES[STAGE_NAMES.index(name) + 1 :]):
            return "completed"  # its own event is still on the way
        if self.final_outcome:
            return "cancelled"  # it will never run
        if stage.value("state") == "retrying":
            return "retrying"
        return "running" if stage.begun or name == "ingest" else "waiting"
