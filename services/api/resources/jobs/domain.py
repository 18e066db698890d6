"""A job as the JSON object that `GET /jobs/{id}` answers, and the stage that a retry of it begins from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from services.api.domain.state import FINAL, JobState, Unreadable, Waiting
from services.api.resources.artifacts.domain import names_of
from services.api.resources.lists import whole_seconds
from shared.errors import InputError
from shared.events import (
    RUNNER_STAGES,
    STAGE_NAMES,
    DatasetValidated,
    EvalCompleted,
    ModelDeployed,
    StageName,
    TrainingCompleted,
)

Link = Callable[[str], str]
"""Makes the absolute URL of a path below the job, such as `report`."""


def job_view(state: JobState, link: Link, *, now: float, notes: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """The JSON object of a job. Its times are in seconds since the epoch: whole ones for the job, as in OpenAI's API,
    and fractions for its stages.

    `now`: by the clock that made these times; it is passed on as `as_of`, because the client's clock may differ.
    `notes`: what is away.
    """
    job, status, outcome = state.manifest, state.status, state.final_outcome
    spec = job.spec if job else None
    validated, trained = state.event_of(DatasetValidated), state.event_of(TrainingCompleted)
    method = validated.method if validated else spec.method if spec else None
    return {
        "id": state.job_id,
        "object": "job",
        "created_at": whole_seconds(state.created_at),
        "finished_at": whole_seconds(outcome.at) if outcome else None,
        "status": status,
        "model": job.base if job else None,
        "fine_tuned_model": job.model if job and status == "succeeded" else None,
        "alias": job.alias if job else None,
        "suffix": spec.suffix if spec else None,
        "method": method,
        "seed": spec.seed if spec else None,
        "error": _error(state),
        "dataset": job.dataset.model_dump() if job else None,
        "validation_file": job.validation_file.model_dump() if job and job.validation_file else None,
        "origin": job.origin.model_dump() if job else None,
        "metadata": dict(spec.metadata) if spec else {},
        "waiting_for": _waiting_for(state),
        "stages": {name: _stage(state, name, now) for name in STAGE_NAMES},
        "validation": _validation(validated),
        "training": _training(trained),
        "evaluation": _evaluation(state.event_of(EvalCompleted), link),
        "deployment": _deployment(state.event_of(ModelDeployed)),
        "files": names_of(state),
        "trace_id": job.traceparent.split("-")[1] if job and "-" in job.traceparent else None,
        "as_of": now,
        "notes": list(notes),
    }


def unreadable_view(job: Unreadable) -> dict[str, Any]:
    """A job of which only the id, the age and the status are known; it is read from the ledger again."""
    note = {"code": "unreadable", "message": "This job cannot be shown; the api's log says why", "seconds": 0.0}
    return {
        "id": job.job_id,
        "object": "job",
        "created_at": whole_seconds(job.created_at),
        "finished_at": None,
        "status": job.status,
        "model": None,
        "fine_tuned_model": None,
        "error": None,
        "stages": {},
        "notes": [note],
    }


def first_stage(state: JobState, asked: str | None) -> StageName:
    """The stage that a retry of the job begins from; `asked` is the one that the user names.

    Raises:
        InputError: the job is under way, or it cannot begin from there.
    """
    names, job_id, ended_in = ", ".join(RUNNER_STAGES), state.job_id, state.ended_in
    if asked is not None and asked not in RUNNER_STAGES:
        raise InputError("invalid_stage", f"A job cannot begin from {asked!r}, only from {names}.", "from")
    if ended_in is None:
        message = f"Job {job_id} is still under way ({state.status}); wait for its end or cancel it, then try it again."
        raise InputError("job_under_way", message, "job_id")
    if ended_in == "ingest":
        message = (
            f"Job {job_id} ended in ingest, so there is nothing to begin from: correct its settings or its validation "
            "file, and drop the dataset again."
        )
        raise InputError("nothing_to_retry", message, "job_id")
    if asked is None and state.status == "succeeded":
        message = f"Job {job_id} succeeded; say which stage the new job begins from: {names}."
        raise InputError("stage_required", message, "from")
    for name in RUNNER_STAGES:
        if name == (asked or ended_in):
            return name
        if not state.completed(name):
            message = f"Job {job_id} has no result of {name} to take over; begin from {name} or an earlier stage."
            raise InputError("stage_not_reached", message, "from")
    raise InputError("invalid_stage", f"Job {job_id} ended in {ended_in}; say where to begin: {names}.", "from")


def _error(state: JobState) -> dict[str, Any] | None:
    if state.status != "failed":
        return None
    if failure := state.failure:
        return failure.model_dump(include={"code", "message", "param"})
    return {"code": "unreadable", "message": "What the stage said of its failure cannot be read.", "param": None}


def _waiting_for(state: JobState) -> str | None:
    """What holds the job up, in one line."""
    for name in STAGE_NAMES:
        if waiting := state.waiting(name):
            return f"{name}: {waiting.what}"
    return None


def _stage(state: JobState, name: StageName, now: float) -> dict[str, Any]:
    stage, shown = state.stage(name), state.shown(name)
    over = shown not in ("running", "retrying")
    failure = state.failure
    message = failure.message if failure and shown == "failed" else stage.value("message") or ""
    waiting = state.waiting(name)
    return {
        "state": shown,
        "started_at": stage.started_at if stage.started_at is not None else stage.claimed_at,
        "finished_at": stage.outcome.at if stage.outcome else None,
        "step": stage.value("step"),
        "total_steps": stage.value("total_steps"),
        "eta_seconds": None if over or state.status in (*FINAL, "paused") or not stage.eta else stage.eta.value,
        "message": message,
        "waiting_for": waiting.what if waiting else None,
        "waiting": _waiting(waiting, now) if waiting else None,
        "data": {key: stamped.value for key, stamped in sorted(stage.figures.items())},
    }


def _waiting(waiting: Waiting, now: float) -> dict[str, Any]:
    """Since when, and until when, beside seconds that need no clock of the client."""
    since, again = waiting.since, waiting.next_try_at
    return {
        "cause": waiting.cause,
        "since": since,
        "seconds": None if since is None else round(max(0.0, now - since), 1),
        "next_try_seconds": None if again is None else round(max(0.0, again - now), 1),
    }


def _validation(event: DatasetValidated | None) -> dict[str, Any] | None:
    if event is None:
        return None
    named = {"train": event.train, "validation": event.validation, "test": event.test}
    splits = {name: split for name, split in named.items() if split}
    return {
        "format": event.format,
        "examples": sum(split.examples for split in splits.values()),
        "tokens": sum(split.tokens for split in splits.values()),
        "longest_tokens": event.longest_tokens,
        "max_length": event.max_length,
        "splits": {name: {"examples": split.examples, "tokens": split.tokens} for name, split in splits.items()},
        "as_served": str(event.served) if event.served else None,
    }


def _training(event: TrainingCompleted | None) -> dict[str, Any] | None:
    fields = {
        "train_loss",
        "valid_loss",
        "overfitting",
        "steps",
        "epochs",
        "trained_tokens",
        "rank",
        "seconds",
        "hyperparameters",
        "usage",
    }
    return event.model_dump(mode="json", include=fields) if event else None


def _evaluation(event: EvalCompleted | None, link: Link) -> dict[str, Any] | None:
    if event is None:
        return None
    fields = {"examples", "metric", "scores", "delta", "passed", "reasons"}
    links = {"report": link("files/report.json"), "html": link("report")}
    return event.model_dump(mode="json", include=fields) | links


def _deployment(event: ModelDeployed | None) -> dict[str, Any] | None:
    return (
        event.model_dump(mode="json", include={"model", "alias", "previous", "endpoint", "traffic"}) if event else None
    )
