"""A job as the JSON object of OpenAI's API, and ours beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.api.domain.projection import is_number
from services.api.domain.state import FINAL, JobState, Unreadable
from services.api.resources.files.domain import result_file
from services.api.resources.lists import whole_seconds
from shared.events import STAGE_NAMES, DatasetValidated, Job, JobSpec, Reference, TrainingCompleted
from shared.events.spec import Hyperparameters, Method
from shared.stages.ledger import file_of_content

OBJECT = "fine_tuning.job"
SHOWN: Mapping[Method, tuple[str, ...]] = {
    "supervised": ("n_epochs", "batch_size", "learning_rate_multiplier"),
    "dpo": ("n_epochs", "batch_size", "learning_rate_multiplier", "beta"),
}
"""The hyperparameters that OpenAI's API has."""


def job_view(state: JobState, native: Mapping[str, Any], *, organization: str, now: float) -> dict[str, Any]:
    """The JSON object of a job with a manifest. `native`: the same job as `GET /jobs/{id}` shows it. Times are in whole
    seconds since the epoch."""
    job = state.manifest
    if job is None or "origin" not in native:
        return unreadable_view(Unreadable(state.job_id, state.created_at, state.status), organization=organization)
    trained = state.event_of(TrainingCompleted)
    method = method_of(state)
    hyperparameters = _hyperparameters(job.spec, state, trained)
    return {
        "id": state.job_id,
        "object": OBJECT,
        "created_at": native["created_at"],
        "finished_at": native["finished_at"],
        "estimated_finish": _estimated_finish(state, now),
        "status": state.status,
        "model": model_of(job),
        "fine_tuned_model": native["fine_tuned_model"],
        "organization_id": organization,
        "training_file": file_of(job.dataset),
        "validation_file": file_of(job.validation_file) if job.validation_file else None,
        "result_files": [file.file_id] if (file := result_file(state)) else [],
        "trained_tokens": trained.trained_tokens if trained else None,
        "hyperparameters": {name: hyperparameters[name] for name in SHOWN["supervised"]},
        "method": {
            "type": method,
            method: {"hyperparameters": {name: hyperparameters[name] for name in SHOWN[method]}},
        },
        "seed": job.spec.seed,
        "integrations": [each.model_dump(mode="json") for each in job.spec.integrations],
        "metadata": dict(job.spec.metadata),
        "error": native["error"],
        "user_provided_suffix": job.spec.suffix,
        "alias": native["alias"],
        "evaluation": native["evaluation"],
        "deployment": native["deployment"],
        "waiting_for": native["waiting_for"],
        "trace_id": native["trace_id"],
    }


def unreadable_view(job: Unreadable, *, organization: str) -> dict[str, Any]:
    """A job of which only the id, the age and the status are known, with all fields that a client needs."""
    unknown = dict.fromkeys(SHOWN["supervised"], "auto")
    return {
        "id": job.job_id,
        "object": OBJECT,
        "created_at": whole_seconds(job.created_at),
        "finished_at": None,
        "estimated_finish": None,
        "status": job.status,
        "model": "",
        "fine_tuned_model": None,
        "organization_id": organization,
        "training_file": "",
        "validation_file": None,
        "result_files": [],
        "trained_tokens": None,
        "hyperparameters": unknown,
        "seed": 0,
        "metadata": {},
        "error": None,
    }


def model_of(job: Job) -> str:
    """What is trained: the base, or the tuned model that the training starts from."""
    asked = job.spec.model
    return asked if asked and job.start_from else job.base


def method_of(state: JobState) -> Method:
    """How it is trained. Before the file is read, and without a method in the request, it is the usual one."""
    validated = state.event_of(DatasetValidated)
    asked = state.manifest.spec.method if state.manifest else None
    return (validated.method if validated else asked) or "supervised"


def file_of(content: Reference) -> str:
    """The id of a file of the Files API; of a dataset that was dropped, its place."""
    return file_of_content(content.key) or f"s3://{content.bucket}/{content.key}"


def _hyperparameters(spec: JobSpec, state: JobState, trained: TrainingCompleted | None) -> dict[str, Any]:
    """What was asked for; once the trainer has chosen the others, the numbers."""
    asked = spec.hyperparameters.model_dump(mode="json", include=set(Hyperparameters.model_fields))
    told = {name: stamped.value for name, stamped in state.stage("trainer").figures.items()}
    known = told | (trained.hyperparameters if trained else {})
    return {name: known[name] if is_number(known.get(name)) else value for name, value in asked.items()}


def _estimated_finish(state: JobState, now: float) -> int | None:
    """When the stage under way ends, as it said itself; None: it has said nothing."""
    if state.status in FINAL:
        return None
    for name in reversed(STAGE_NAMES):
        stage = state.stage(name)
        if stage.begun:
            told = stage.eta
            if stage.outcome or state.shown(name) != "running" or told is None or not is_number(told.value):
                return None
            # what it said a minute ago counts from then; a sender whose clock is fast does not speak of the future
            return whole_seconds(max(now, min(told.at, now) + told.value))
    return None
