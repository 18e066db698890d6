"""How one fact changes what is known of a job."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from services.api.domain.state import Ending, JobState, Outcome, StageState, Stamped
from shared.events import (
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


@dataclass(frozen=True)
class Manifest:
    """`job.json` was read."""

    job: Job


@dataclass(frozen=True)
class Occurred:
    """An event came from a topic at `at` (its own time, in seconds), or was read from `result.json` (`committed`)."""

    event: Event
    ce_id: str
    at: float
    committed: bool = False
    attempt: int | None = None


@dataclass(frozen=True)
class Claimed:
    """The ledger showed at `at` that somebody works on a stage, or (`retrying`) gave it back after a failure."""

    stage: StageName
    at: float
    retrying: bool


Fact: TypeAlias = Manifest | Occurred | Claimed


def project(state: JobState, fact: Fact) -> JobState:
    """The state after `fact`; the order and the repetition of facts do not matter."""
    match fact:
        case Manifest(job):
            return state.model_copy(update={"manifest": job})
        case Occurred():
            return _occurred(state, fact)
        case Claimed():
            return _claimed(state, fact)


def ends(event: Event) -> tuple[str, Ending] | None:
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
    said = {name: value for name in FIELDS if (value := getattr(event, name)) not in (None, "")}
    said["state"] = "retrying" if event.state == "retrying" else "running"
    # a result is no sign of when its stage started
    started = stage.started_at if ends(event) else _earlier(stage.started_at, fact.at)
    return stage.model_copy(
        update={
            "started_at": started,
            "latest": _later(stage.latest, said, fact.at, fact.ce_id),
            "figures": _later(stage.figures, event.data, fact.at, fact.ce_id),
        }
    )


def _claimed(state: JobState, fact: Claimed) -> JobState:
    stage, said = state.stage(fact.stage), "retrying" if fact.retrying else "running"
    if stage.outcome or (stage.begun and stage.value("state") == said):
        return state
    return _with(
        state,
        fact.stage,
        stage.model_copy(
            update={
                "claimed_at": _earlier(stage.claimed_at, fact.at),
                "latest": _later(stage.latest, {"state": said}, fact.at, ""),
            }
        ),
    )


def _with(state: JobState, name: str, stage: StageState) -> JobState:
    return state.model_copy(update={"stages": {**state.stages, name: stage}})


def _earlier(known: float | None, at: float) -> float:
    return at if known is None else min(known, at)


def _later(known: dict[str, Stamped], said: dict[str, Any], at: float, ce_id: str) -> dict[str, Stamped]:
    """`known` with every value of `said` that is later than what is known under its name."""
    news = {
        name: Stamped(at=at, id=ce_id, value=value)
        for name, value in said.items()
        if name not in known or (known[name].at, known[name].id) < (at, ce_id)
    }
    return {**known, **news}
