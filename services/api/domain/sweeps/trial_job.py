"""The job that tries a draw."""

from __future__ import annotations

from services.api.domain.sweeps.documents import SWEEP, TRIAL, Sweep
from services.api.domain.sweeps.space import Parameters, settings
from shared.events import Budget, Job, Origin
from shared.jobs import manifest


def job_of_trial(
    sweep: Sweep, number: int, parameters: Parameters, budget: Budget | None, *, now: float, traceparent: str
) -> Job:
    """The manifest of a trial. Its id follows from the sweep and the number, because its metadata hold both."""
    spec = settings(sweep.spec, parameters)
    metadata = {**spec.metadata, SWEEP: sweep.sweep_id, TRIAL: str(number)}
    return manifest.job_of(
        sweep.dataset,
        spec.model_copy(update={"metadata": metadata, "budget": budget}),
        validation_file=sweep.validation_file,
        base=sweep.base,
        start_from=sweep.start_from,
        notes=sweep.notes,
        organization=sweep.organization,
        origin=Origin(kind="api", source=sweep.key_id, sweep=sweep.sweep_id),
        traceparent=traceparent,
        project=sweep.project,
        name=sweep.filename,
        now=now,
    )
