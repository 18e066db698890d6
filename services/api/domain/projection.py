"""Changes what is known of a job by one fact: a manifest, an event, or a claim."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from services.api.domain.state import JobState, Outcome, StageState, Stamped
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
    """At `at` the ledger showed that a stage is being worked on, or (`retrying`) that it waits for its next attempt."""

    stage: StageName
    at: float
    retrying: bool


Fact: TypeAlias = Manifest | Occurred | Claimed


def project(state: JobState, fact: Fact) -> JobState:
    """The state after `fact`. The order of facts does not matter, and neither does repetition."""
    match fact:
        case Manifest(job):
            return state.model_copy(update={"manifest": job})
        case Occurred():
            return _occurred(state, fact)
        case Claimed():
            return _claimed(state, fact)


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
    news["state"] = "retrying" if event.state == "retrying" else "running"
    # the time of a result does not tell when its stage started
    started = stage.started_at if ends(event) else _earlier(stage.started_at, fact.at)
    return stage.model_copy(
        update={
            "started_at": started,
            "latest": _later(stage.latest, news, fact.at, fact.ce_id),
            "figures": _later(stage.figures, event.data, fact.at, fact.ce_id),
        }
    )


def _claimed(state: JobState, fact: Claimed) -> JobState:
    stage, shown = state.stage(fact.stage), "retrying" if fact.retrying else "running"
    if stage.outcome or (stage.begun and stage.value("state") == shown):
        return state
    return _with(
        state,
        fact.stage,
        stage.model_copy(
            update={
                "claimed_at": _earlier(stage.claimed_at, fact.at),
                "latest": _later(stage.latest, {"state": shown}, fact.at, ""),
            }
        ),
    )


def _with(state: JobState, name: str, stage: StageState) -> JobState:
    return state.model_copy(update={"stages": {**state.stages, name: stage}})


def _earlier(known: float | None, at: float) -> float:
    return at if known is None else min(known, at)


def _later(known: dict[str, Stamped], news: dict[str, Any], at: float, ce_id: str) -> dict[str, Stamped]:
    """`known`, changed by each value of `news` that is later than the known value of the same name."""
    changed = {
        name: Stamped(at=at, id=ce_id, value=value)
        for name, value in news.items()
        if name not in known or (known[name].at, known[name].id) < (at, ce_id)
    }
    return {**known, **changed}
