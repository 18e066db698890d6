"""The state of a job, in registers that merge. Facts give the same state in any order, also when they repeat.

Every register is a minimum or a maximum over an order that is total, so `project` is commutative, associative and
idempotent (a state-based CRDT, Shapiro et al. 2011, "A comprehensive study of convergent and commutative replicated
data types"). That is what makes lost, late, repeated and reordered events harmless, and a rebuild exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import AliasChoices, Field, ValidationError

from shared.events import STAGE_NAMES, Claim, Event, EventRecord, FrozenModel, Job, JobFailed, StageName, StageOutcome
from shared.events.limits import DEFAULT_PROJECT, Json

E = TypeVar("E", bound=Event)

Status: TypeAlias = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
Shown: TypeAlias = Literal["waiting", "running", "retrying", "completed", "failed", "cancelled"]


FINAL: frozenset[Status] = frozenset({"succeeded", "failed", "cancelled"})


class Waiting(FrozenModel):
    """What a stage waits for, in one line. Times are in seconds since the epoch; None: not known.

    `cause` is `transient` (something is away) or `configuration` (a setting is wrong).
    """

    what: str
    cause: str | None = None
    since: float | None = None
    next_try_at: float | None = None


class Stamped(FrozenModel):
    """A value, the attempt that told it (0: not told), its time in seconds since the epoch, and the id of its event. Of
    two values of one register the later one stays.

    The attempt counts more than the time: two attempts may run on machines whose clocks differ by an hour.
    """

    at: float
    id: str
    value: Json
    attempt: int = 0

    @property
    def order(self) -> tuple[int, float, str]:
        return (self.attempt, self.at, self.id)


class ClaimSeen(FrozenModel):
    """What `claim.json` said of a stage. The claim changes by compare-and-swap, so `order` needs no clock to tell which
    of two is the later one.

    `lapsed`: it had run out for a while, and nobody had taken the stage.
    """

    attempt: int
    given_back: bool
    expires: float
    lapsed: bool
    waiting_for: str | None = None
    waiting_since: float | None = None
    not_before: float = 0.0
    paused: bool = False

    @classmethod
    def of(cls, claim: Claim, *, lapsed: bool) -> ClaimSeen:
        return cls(
            attempt=claim.attempt,
            given_back=claim.given_back,
            expires=claim.expires,
            lapsed=lapsed,
            waiting_for=claim.waiting_for,
            waiting_since=claim.waiting_since,
            not_before=claim.not_before,
            paused=claim.paused,
        )

    @property
    def order(self) -> tuple[int, bool, float, bool]:
        return (self.attempt, self.given_back, self.expires, self.lapsed)

    def is_news(self, known: ClaimSeen | None, resumed_at: float = float("-inf")) -> bool:
        """Whether it is later than `known`, and more than a renewal. The first renewal after the user has resumed the
        job, at `resumed_at`, is more."""
        if known is None:
            return True
        if known.expires <= resumed_at < self.expires:
            return self.order > known.order
        return self.order > known.order and self != known.model_copy(update={"expires": self.expires})


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


class Wish(FrozenModel):
    """The last pause of a job, or its last resume: its number, and its time in seconds since the epoch."""

    number: int
    at: float

    def later(self, known: Wish | None) -> Wish:
        """That of two wishes of one kind which counts."""
        return self if known is None or (self.number, -self.at) > (known.number, -known.at) else known


class StageState(FrozenModel):
    """One stage. `latest` holds state, message, step, total_steps and eta_seconds; `figures` the data, key by key."""

    started_at: float | None = None
    claimed_at: float | None = None
    """When a claim was first seen in the ledger. It is the start of the stage if the `started` event got lost."""
    claim: ClaimSeen | None = None
    latest: dict[str, Stamped] = Field(default_factory=dict)
    figures: dict[str, Stamped] = Field(default_factory=dict)
    outcome: Outcome | None = None

    @property
    def begun(self) -> bool:
        return self.started_at is not None or self.claimed_at is not None or self.outcome is not None

    def value(self, field: str) -> Any:
        stamped = self.latest.get(field)
        return stamped.value if stamped else None

    @property
    def eta(self) -> Stamped | None:
        """When the stage ends, as its newest attempt said; None: that has not said anything yet. What an earlier one
        said is over."""
        told, said = self.latest.get("eta_seconds"), self.latest.get("state")
        return None if told is None or (said is not None and told.attempt < said.attempt) else told

    def activity(self, name: str) -> tuple[Shown, Waiting | None]:
        """What the stage does while it has no outcome. The ledger decides; an event tells what it does not hold: a
        later attempt, or what happens within the attempt that has the claim."""
        said, claim = self.latest.get("state"), self.claim
        told = self._told()
        if claim is None or (said is not None and said.attempt > claim.attempt):
            return (said.value, told) if said else ("waiting", None)
        if claim.given_back and claim.paused:
            return "waiting", None
        if claim.given_back and claim.waiting_for is not None:
            cause = told.cause if told and told.what == claim.waiting_for else None
            since, again = claim.waiting_since, claim.not_before or None
            return "waiting", Waiting(what=claim.waiting_for, cause=cause, since=since, next_try_at=again)
        if claim.given_back and claim.not_before:
            return "retrying", None
        if claim.lapsed:
            return "waiting", Waiting(what=f"a free {name} service", since=claim.expires or None)
        if claim.given_back or said is None or said.attempt < claim.attempt:
            return "running", None
        return said.value, told

    def worked_after(self, at: float) -> bool:
        """Whether anybody has worked on the stage after `at`, as far as is known."""
        claim, said = self.claim, self.latest.get("state")
        if self.outcome:
            return self.outcome.at > at
        if said is not None and said.at > at and said.attempt > (claim.attempt if claim else 0):
            return True
        return claim is not None and claim.expires > at and not claim.paused

    def _told(self) -> Waiting | None:
        value = self.value("waiting")
        return Waiting.model_validate(value) if value else None


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
    paused: Wish | None = None
    resumed: Wish | None = None
    """The user's last pause, and the last resume."""

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
    def project(self) -> str:
        """Only its keys see the job."""
        return self.manifest.project if self.manifest else DEFAULT_PROJECT

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
    def ended_in(self) -> str | None:
        """The stage that ended the job; None while the job is under way."""
        final = self.final_outcome
        return next((name for name, stage in self.stages.items() if final and stage.outcome == final), None)

    def completed(self, name: str) -> bool:
        """Whether the ledger has a result of the stage that others can use."""
        outcome = self.stage(name).outcome
        return outcome is not None and outcome.committed and outcome.ending == "completed"

    @property
    def status(self) -> Status:
        if outcome := self.final_outcome:
            return "succeeded" if outcome.ending == "completed" else outcome.ending
        if self.paused and (self.resumed is None or self.resumed.number < self.paused.number):
            return "paused"
        if self.resumed and not any(stage.worked_after(self.resumed.at) for stage in self.stages.values()):
            return "queued"  # until a stage works on it again
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
        event = _event(self.final_outcome.event) if self.final_outcome else None
        return event if isinstance(event, JobFailed) else None

    def shown(self, name: StageName) -> Shown:
        """The state of a stage as a user sees it."""
        stage = self.stage(name)
        if stage.outcome:
            return stage.outcome.ending
        if any(self.stage(later).begun for later in STAGE_NAMES[STAGE_NAMES.index(name) + 1 :]):
            return "completed"  # its own event is still on the way
        if self.final_outcome:
            return "cancelled"  # it will never run
        return stage.activity(name)[0] if stage.begun or name != "ingest" else "running"

    def waiting(self, name: StageName) -> Waiting | None:
        """What a stage waits for; None: nothing outside holds it up."""
        return self.stage(name).activity(name)[1] if self.shown(name) == "waiting" else None


@dataclass(frozen=True)
class Unreadable:
    """What is left of a job whose row in the database cannot be read."""

    job_id: str
    created_at: float
    status: str
