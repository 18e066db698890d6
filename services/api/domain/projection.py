"""Changes what is known of a job by one fact: a manifest, an event, a claim, or what its user wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeGuard

from services.api.domain.state import ClaimSeen, JobState, Outcome, StageState, Stamped, Waiting, Wish
from shared.events import (
    Claim,
    DatasetUploaded,
    DatasetValidated,
    EvalCompleted,
    Event,
    EventRecord,
    Job,
    JobFailed,
    JobProgress,
    ModelDeployed,
    StageName,
    StageOutcome,
    TrainingCompleted,
)

COMPLETES: dict[type[Event], StageName] = {
    DatasetUploaded: "ingest",
    DatasetValidated: "validate",
    TrainingCompleted: "trainer",
    EvalCompleted: "evaluator",
    ModelDeployed: "inference",
}
FIELDS = ("message", "step", "total_steps", "eta_seconds")
TAKE_OVER_SECONDS = 30.0
"""A claim that ran out is taken over much sooner, if a service of the stage runs and has room."""


@dataclass(frozen=True)
class Manifest:
    """`job.json` was read."""

    job: Job


@dataclass(frozen=True)
class Occurred:
    """An event came from a topic at `at` (its own time, in seconds), or was read from `result.json` (`committed`).

    `sent_at` is the time that its sender gave it, if that differs, as it does when the sender's clock is fast. It only
    orders what one attempt says.
    """

    event: Event
    ce_id: str
    at: float
    committed: bool = False
    attempt: int | None = None
    sent_at: float | None = None


@dataclass(frozen=True)
class Claimed:
    """At `at`, by the clock of the ledger, `claim.json` of a stage was read."""

    job_id: str
    stage: StageName
    at: float
    claim: Claim

    @property
    def seen(self) -> ClaimSeen:
        over = max(self.claim.expires, self.claim.not_before) + TAKE_OVER_SECONDS
        # nobody takes a job that is paused
        return ClaimSeen.of(self.claim, lapsed=self.at > over and not self.claim.paused)


@dataclass(frozen=True)
class Wished:
    """The user has paused or resumed the job, at `at`, by the clock of the ledger. The first pause is number 1, and has
    the number of its resume."""

    job_id: str
    action: Literal["pause", "resume"]
    number: int
    at: float


Fact: TypeAlias = Manifest | Occurred | Claimed | Wished


def project(state: JobState, fact: Fact) -> JobState:
    """The state after `fact`. The order of facts does not matter, and neither does repetition."""
    match fact:
        case Manifest(job):
            return state.model_copy(update={"manifest": job})
        case Occurred():
            return _occurred(state, fact)
        case Claimed():
            return _claimed(state, fact)
        case Wished():
            name = "paused" if fact.action == "pause" else "resumed"
            wish = Wish(number=fact.number, at=fact.at)
            return state.model_copy(update={name: wish.later(getattr(state, name))})


def ends(event: Event) -> tuple[str, StageOutcome] | None:
    """The stage that the event ends, and how; None when it ends none."""
    if stage := COMPLETES.get(type(event)):
        return stage, "completed"
    if isinstance(event, JobFailed):
        return event.stage, "cancelled" if event.code == "cancelled" else "failed"
    if isinstance(event, JobProgress) and event.stage == "inference" and event.state == "not_promoted":
        return "inference", "completed"
    return None


def _occurred(state: JobState, fact: Occurred) -> JobState:
    event = fact.event
    if isinstance(event, JobProgress):
        state = _with(state, event.stage, _progress(state.stage(event.stage), event, fact))
    if ended := ends(event):
        name, ending = ended
        stage = state.stage(name)
        outcome = Outcome(
            ending=ending,
            at=fact.at,
            event=EventRecord.of(event, fact.ce_id),
            committed=fact.committed,
            attempt=fact.attempt,
        )
        if stage.outcome is None or outcome.rank < stage.outcome.rank:
            state = _with(state, name, stage.model_copy(update={"outcome": outcome}))
    return state


def _progress(stage: StageState, event: JobProgress, fact: Occurred) -> StageState:
    news = {name: value for name in FIELDS if (value := getattr(event, name)) not in (None, "")}
    news["state"] = event.state if event.state in ("retrying", "waiting") else "running"
    waiting = waiting_of(event, fact.at) if event.state == "waiting" else None
    news["waiting"] = waiting.model_dump() if waiting else None
    # the time of a result does not tell when its stage started
    started = stage.started_at if ends(event) else _earlier(stage.started_at, fact.at)
    sent_at = fact.at if fact.sent_at is None else fact.sent_at
    stamp = Stamped(at=sent_at, id=fact.ce_id, value=None, attempt=event.attempt or 0)
    return stage.model_copy(
        update={
            "started_at": started,
            "latest": _later(stage.latest, news, stamp),
            "figures": _later(stage.figures, {} if waiting else event.data, stamp),
        }
    )


def waiting_of(event: JobProgress, at: float) -> Waiting:
    """What a `job.progress` of the state `waiting`, sent at `at`, says."""
    cause, seconds, since = (event.data.get(name) for name in ("cause", "seconds", "since"))
    return Waiting(
        what=event.message or "something that is away",
        cause=cause if isinstance(cause, str) else None,
        since=float(since) if is_number(since) else None,
        next_try_at=at + float(seconds) if is_number(seconds) else None,
    )


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether `value`, of an event's data, is a finite number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _claimed(state: JobState, fact: Claimed) -> JobState:
    stage, seen = state.stage(fact.stage), fact.seen
    newer = seen if stage.claim is None or stage.claim.order < seen.order else stage.claim
    return _with(
        state,
        fact.stage,
        stage.model_copy(update={"claimed_at": _earlier(stage.claimed_at, fact.at), "claim": newer}),
    )


def _with(state: JobState, name: str, stage: StageState) -> JobState:
    return state.model_copy(update={"stages": {**state.stages, name: stage}})


def _earlier(known: float | None, at: float) -> float:
    return at if known is None else min(known, at)


def _later(known: dict[str, Stamped], news: dict[str, Any], stamp: Stamped) -> dict[str, Stamped]:
    """`known`, changed by each value of `news` whose `stamp` is later than that of the known value of the same name."""
    changed = {
        name: stamp.model_copy(update={"value": value})
        for name, value in news.items()
        if name not in known or known[name].order < stamp.order
    }
    return {**known, **changed}
