"""The history of a job: the messages that a user reads, in OpenAI's words where OpenAI has some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from services.api.domain.projection import Claimed, Fact, Manifest, Wished, ends, is_number, waiting_of
from services.api.domain.state import Waiting
from shared import ids
from shared.events import (
    DatasetValidated,
    EvalCompleted,
    Event,
    Job,
    JobFailed,
    JobProgress,
    ModelDeployed,
    TrainingCompleted,
)

LOSSES = {"train_loss": "training loss", "valid_loss": "validation loss", "full_valid_loss": "full validation loss"}
STARTED = {
    "validate": "Validating training file",
    "trainer": "Fine-tuning job started",
    "evaluator": "Evaluating the fine-tuned model against its base",
    "inference": "Loading the fine-tuned model for serving",
}
APART = 1e-5
"""Seconds between messages that belong to one moment: less than anything takes, and more than the database rounds."""
SUCCEEDED = "The job has successfully completed"


@dataclass(frozen=True)
class Message:
    """One entry of a job's history. `id` is derived from the fact, so a repeated fact gives the same entry. `at` is in
    seconds since the epoch."""

    id: str
    at: float
    message: str
    level: Literal["info", "warn", "error"] = "info"
    type: Literal["message", "metrics"] = "message"
    data: dict[str, Any] = field(default_factory=dict)


def messages(fact: Fact) -> list[Message]:
    """The entries that `fact` adds to the history, in reading order. Many facts add none."""
    if isinstance(fact, Manifest):
        return list(_of_manifest(fact.job))
    if isinstance(fact, Claimed):
        return list(_of_claim(fact))
    if isinstance(fact, Wished):
        id_ = ids.event_id(fact.job_id, fact.action, fact.number)
        return [Message(id_, fact.at, f"Job {fact.action}d", data={"number": fact.number})]
    event = fact.event
    if isinstance(event, JobProgress) and event.state == "started":
        return _started(event.job_id, event.stage, fact.at)
    found = list(_of_event(event, fact.ce_id, fact.at))
    if ends(event) == ("inference", "completed"):
        found.append(Message(ids.event_id(_job_id(event), "succeeded"), fact.at, SUCCEEDED))
    return found


def _of_manifest(job: Job) -> Iterator[Message]:
    yield Message(ids.event_id(job.job_id, "created"), job.created_at, f"Created fine-tuning job: {job.job_id}")
    for number, note in enumerate(job.notes, start=1):
        # apart in time, so that a rebuild, which puts every message at its time, puts them in this order
        yield Message(ids.event_id(job.job_id, "note", number), job.created_at + number * APART, note, "warn")
    parent, stage = job.origin.parent_job, job.origin.from_stage
    if parent and stage:
        adopted = f"; adopted: {', '.join(job.adopts)}" if job.adopts else ""
        data = {"parent_job": parent, "from_stage": stage, "adopted": list(job.adopts)}
        began = ids.event_id(job.job_id, "retry")
        at = job.created_at + (len(job.notes) + 1) * APART
        yield Message(began, at, f"Began as a retry of {parent} from {stage}{adopted}", data=data)


def _of_claim(fact: Claimed) -> Iterator[Message]:
    """What a claim tells in place of events that were lost. The entries have the ids that they have from the events."""
    yield from _started(fact.job_id, fact.stage, fact.at)
    seen = fact.seen
    if seen.given_back and seen.waiting_for is not None:
        waiting = Waiting(what=seen.waiting_for, since=seen.waiting_since)
        yield _waits(fact.job_id, fact.stage, waiting, fact.at)


def _started(job_id: str, stage: str, at: float) -> list[Message]:
    if stage not in STARTED:
        return []
    # named after the stage, not the event: a second attempt does not start the stage again
    return [Message(ids.event_id(job_id, "started", stage), at, STARTED[stage], data={"stage": stage})]


def _waits(job_id: str, stage: str, waiting: Waiting, at: float) -> Message:
    # named after what it waits for: every further try in vain would fill the history
    since = round(waiting.since) if is_number(waiting.since) else 0
    id_ = ids.event_id(job_id, "waiting", stage, waiting.what, since)
    return Message(id_, at, f"{stage} waits: {waiting.what}", "warn", data={"stage": stage, "since": waiting.since})


def _of_event(event: Event, ce_id: str, at: float) -> Iterator[Message]:
    data: dict[str, Any]
    match event:
        case DatasetValidated():
            splits = {"train": event.train, "validation": event.validation, "test": event.test}
            data = {f"{name}_examples": split.examples for name, split in splits.items() if split}
            yield Message(ce_id, at, "Files validated, moving job to queued state", data=data)
        case TrainingCompleted():
            data = event.model_dump(
                mode="json", include={"model", "steps", "epochs", "trained_tokens", "train_loss", "valid_loss"}
            )
            yield Message(ce_id, at, f"New fine-tuned model created: {event.model}", data=data)
            if event.skipped_steps:
                warning = ids.event_id(event.job_id, ce_id, "skipped")
                yield Message(warning, at, _skipped(event), "warn")
            if event.overfitting.verdict in ("overfitting", "underfitting"):
                warning = ids.event_id(event.job_id, ce_id, "verdict")
                yield Message(
                    warning, at, f"The model shows {event.overfitting.verdict}: {event.overfitting.reason}", "warn"
                )
        case EvalCompleted():
            data = event.model_dump(mode="json", include={"metric", "examples", "scores", "delta", "passed", "reasons"})
            yield Message(ce_id, at, _gate_outcome(event), data=data)
        case ModelDeployed():
            instead = f" (before: {event.previous})" if event.previous else ""
            data = event.model_dump(mode="json", include={"model", "alias", "previous", "endpoint", "traffic"})
            yield Message(
                ce_id, at, f"Model deployed: {event.alias} now answers with {event.model}{instead}", data=data
            )
        case JobFailed(code="cancelled"):
            yield Message(ce_id, at, "The job was cancelled", data={"stage": event.stage})
        case JobFailed():
            data = {"error_code": event.code, "error_param": event.param, "stage": event.stage}
            yield Message(ce_id, at, event.message, "error", data=data)
        case JobProgress():
            yield from _of_progress(event, ce_id, at)


def _of_progress(event: JobProgress, ce_id: str, at: float) -> Iterator[Message]:
    counted = {"step": event.step, "total_steps": event.total_steps}
    data = {name: value for name, value in counted.items() if value is not None} | event.data
    stage = {"stage": event.stage}
    if event.state == "waiting":
        yield _waits(event.job_id, event.stage, waiting_of(event, at), at)
    elif event.state == "retrying":
        yield Message(ce_id, at, event.message or f"{event.stage} is tried again", "warn", data=data | stage)
    elif event.state == "not_promoted":
        yield Message(ce_id, at, event.message or "The model was not promoted", "warn", data=data | stage)
    elif event.state == "checkpoint":
        yield Message(ce_id, at, f"Checkpoint created at step {event.step}", data=data)
    elif losses := [f"{name}={event.data[key]:.4g}" for key, name in LOSSES.items() if _is_loss(event.data.get(key))]:
        of = f"/{event.total_steps}" if event.total_steps is not None else ""
        yield Message(ce_id, at, f"Step {event.step}{of}: {', '.join(losses)}", type="metrics", data=data)
    elif event.message and event.step is None:  # a counter that moves every second does not belong in the history
        yield Message(ce_id, at, event.message, data=data | stage)


def _skipped(event: TrainingCompleted) -> str:
    skipped = f"{event.skipped_steps} steps were skipped, because their loss or its gradient was not a finite number"
    if event.diverged_at is None:
        return skipped
    return f"{skipped}; training ended at step {event.diverged_at}, and the best adapter so far was kept"


def _gate_outcome(event: EvalCompleted) -> str:
    if "base" not in event.scores:  # a trial of a sweep: nothing was compared
        return " ".join(event.reasons) or "The model was not evaluated"
    scores = {name: values.get(event.metric) for name, values in event.scores.items()}
    told = ", ".join(f"{name} {score:.3f}" for name, score in scores.items() if score is not None)
    delta = event.delta
    interval = f"{delta.mean:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}] at {delta.confidence:.0%}"
    gate = "passed the gate" if event.passed else "did not pass the gate"
    return f"Evaluation on {event.examples} examples {gate}: {event.metric} {told}; tuned - base {interval}"


def _is_loss(value: Any) -> bool:
    return isinstance(value, float) or is_number(value)  # one that is not finite is shown, too


def _job_id(event: Event) -> str:
    return str(getattr(event, "job_id", ""))
