"""The JSON objects that the routes of sweeps answer, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Any, Literal

from services.api.domain.sweeps.documents import Pruning
from services.api.domain.sweeps.standing import TrialStatus
from services.api.resources.answers import JobError, Note, Page, Time
from shared.http.openapi import Answer


class SweepTrial(Answer):
    """One trial of a sweep."""

    number: int
    job_id: str
    status: TrialStatus
    parameters: dict[str, int | float]
    valid_loss: float | None
    """The lowest of its training, once that is over."""
    curve: list[list[float]]
    """The validations so far: how much of the training was done, from 0 to 1, and the loss."""
    seconds: float
    """What its training took."""
    fine_tuned_model: str | None
    error: dict[str, Any] | None
    pruned: str | None
    """Why it was ended early."""


class Sweep(Answer):
    """A search for settings, and its trials."""

    id: str
    object: Literal["sweep"]
    created_at: Time
    finished_at: Time | None
    status: Literal["running", "evaluating", "cancelling", "succeeded", "failed", "cancelled"]
    filename: str
    model: str
    """The base."""
    trials: int
    """How many there are to be."""
    parallel: int
    pruning: Pruning
    seed: int
    space: dict[str, Any]
    spec: dict[str, Any]
    """The settings that all trials share, but for defaults."""
    budget: dict[str, float] | None
    spent: dict[str, float | None]
    """By the trainings that are over."""
    counts: dict[str, int]
    """Trials by status."""
    data: list[SweepTrial]
    """The trials in order; none in a list of sweeps."""
    best: SweepTrial | None
    """The best so far, or the one that is evaluated."""
    evaluated_by: str | None
    """The job that evaluates the best trial."""
    fine_tuned_model: str | None
    """The model of that job."""
    promoted: bool
    """Whether the alias has moved to it."""
    error: JobError | None
    report: str
    """The URL of the page with table and plots."""
    as_of: float
    """When this was so, in seconds since the epoch by the store's clock."""
    notes: list[Note]


class SweepList(Page[Sweep]):
    """A page of sweeps."""
