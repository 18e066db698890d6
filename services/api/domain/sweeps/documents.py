"""The documents of a sweep in the object store. Each is created once; what a sweep has done follows from them, so a
controller that dies goes on where it was."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from services.api.domain.sweeps.space import Parameters, SearchSpace
from services.api.domain.sweeps.standing import Standing
from shared import ids
from shared.events import Budget, FolderReference, FrozenModel, Job, JobSpec, Reference, Retry
from shared.events.limits import DEFAULT_PROJECT, Count, Id, JobId, Limit, Name, ProjectId, SweepId, Text

SWEEPS = "sweeps/"
CLAIM = SWEEPS + "claim.json"
"""Who of all replicas works on sweeps."""

SWEEP, TRIAL = "sweep", "trial"
"""The keys of a trial's metadata: OpenAI's client lists the trials of a sweep by them, and the ids of the jobs, which
are derived from all settings, follow from sweep and number."""

Pruning = Literal["median", "off"]
Outcome = Literal["succeeded", "failed", "cancelled"]

_SWEEP_ID = re.compile(r"sweep-[a-z2-7]{24}")


class Sweep(FrozenModel):
    """`sweeps/{sweep_id}/sweep.json`: what the user wants."""

    sweep_id: SweepId
    created_at: float
    """In seconds since the epoch, by the clock of the object store."""
    project: ProjectId = DEFAULT_PROJECT
    key_id: Id
    request: Id
    """The SHA-256 of the body, in hex."""
    dataset: Reference
    filename: Name
    """Of the dataset, as the user named it."""
    validation_file: Reference | None = None
    base: Name
    start_from: FolderReference | None = None
    organization: Name
    spec: JobSpec
    """The settings that all trials share."""
    space: SearchSpace
    trials: Limit
    parallel: Limit
    pruning: Pruning = "median"
    seed: Count = 0
    budget: Budget | None = None
    """What the trainings of all trials may spend together."""
    max_open_jobs: Limit | None = None
    """How many jobs the project may have under way, by the limits of the key."""
    traceparent: str
    notes: tuple[Text, ...] = ()
    """What its user should know of how the request was understood."""


class Trial(FrozenModel):
    """`sweeps/{sweep_id}/trials/{number}.json`: a draw, and the job that tries it. It is written before the job is
    asked for."""

    number: Count
    """From 0."""
    parameters: Parameters
    job: Job


class Pruned(FrozenModel):
    """`sweeps/{sweep_id}/pruned/{number}.json`: why a trial was ended early. It is written before the job is
    cancelled."""

    number: Count
    fraction: float
    """How much of its training was done, from 0 to 1."""
    valid_loss: float
    reason: Text
    at: float


class Best(FrozenModel):
    """`sweeps/{sweep_id}/best.json`: the trial that is evaluated, and the job that does it: a retry of it from the
    evaluation."""

    number: Count
    job_id: JobId
    retry: Retry


class Cancelled(FrozenModel):
    """`sweeps/{sweep_id}/cancel.json`: the user wants the sweep to end."""

    at: float


class Failure(FrozenModel):
    """Why a sweep failed, in the form of the API's errors."""

    code: Id
    message: Text
    param: Name | None = None


class SweepResult(FrozenModel):
    """`sweeps/{sweep_id}/result.json`: how the sweep ended, and how its trials stood then."""

    outcome: Outcome
    finished_at: float
    error: Failure | None = None
    best: Count | None = None
    """The number of the best trial; None: there is none."""
    job_id: JobId | None = None
    """The job that evaluated it."""
    model: Name | None = None
    promoted: bool = False
    standings: Annotated[tuple[Standing, ...], Field(max_length=10_000)] = ()


@dataclass
class Documents:
    """What is known of a sweep."""

    sweep: Sweep
    trials: dict[int, Trial] = field(default_factory=dict)
    pruned: dict[int, Pruned] = field(default_factory=dict)
    best: Best | None = None
    cancelled: Cancelled | None = None
    result: SweepResult | None = None


def is_sweep_id(text: str) -> bool:
    """Whether a sweep may have this id. Any other text could lead elsewhere when it becomes part of a key."""
    return _SWEEP_ID.fullmatch(text) is not None


def sweep_id_of(project: str, *parts: str | int) -> str:
    """The id of the sweep that `parts` ask for: the same request has the same id."""
    return f"sweep-{ids.derive('sweep', project, *parts)}"


def sweep_prefix(sweep_id: str) -> str:
    return f"{SWEEPS}{sweep_id}/"


def sweep_key(sweep_id: str) -> str:
    return sweep_prefix(sweep_id) + "sweep.json"


def trial_key(sweep_id: str, number: int) -> str:
    return f"{sweep_prefix(sweep_id)}trials/{number:04d}.json"


def pruned_key(sweep_id: str, number: int) -> str:
    return f"{sweep_prefix(sweep_id)}pruned/{number:04d}.json"


def best_key(sweep_id: str) -> str:
    return sweep_prefix(sweep_id) + "best.json"


def cancel_key(sweep_id: str) -> str:
    return sweep_prefix(sweep_id) + "cancel.json"


def sweep_result_key(sweep_id: str) -> str:
    return sweep_prefix(sweep_id) + "result.json"
