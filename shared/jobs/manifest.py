"""Which job a dataset and its settings make, and the event that announces it."""

from __future__ import annotations

from shared import ids
from shared.drops import project_of, stem_of
from shared.errors import InputError
from shared.events import (
    DatasetPointer,
    DatasetUploaded,
    Event,
    FolderReference,
    Job,
    JobFailed,
    JobSpec,
    Origin,
    Reference,
    StageOutcome,
)
from shared.events.limits import DEFAULT_PROJECT


def job_of(
    dataset: Reference,
    spec: JobSpec,
    *,
    validation_file: Reference | None,
    base: str,
    organization: str,
    origin: Origin,
    traceparent: str,
    now: float,
    start_from: FolderReference | None = None,
    notes: tuple[str, ...] = (),
    project: str | None = None,
    name: str | None = None,
    salt: str | None = None,
) -> Job:
    """The manifest of a job. The same bytes at the same place with the same settings are the same job.

    Its alias is the one of the settings, else their suffix, else the `name` of the dataset (None: its key), folders and
    name joined by dashes. Without a `project` it belongs to the one of the dataset's folder.

    `salt` distinguishes jobs whose settings could not be read. `now` is in seconds since the epoch.
    """
    job_id = ids.job_id(dataset.bucket, dataset.key, dataset.sha256, spec, unreadable=salt)
    named = (spec.alias, spec.suffix, _place(name or dataset.key), "model")
    return Job(
        job_id=job_id,
        created_at=now,
        dataset=dataset,
        validation_file=validation_file,
        spec=spec,
        base=base,
        start_from=start_from,
        model=ids.model_id(job_id, base, organization, spec.suffix),
        alias=next(alias for alias in map(ids.alias_of, filter(None, named)) if alias),
        # a program outside may write any origin into its event; only a retry begins from a later stage
        origin=origin.model_copy(update={"from_stage": None}),
        traceparent=traceparent,
        project=project or project_of(dataset.key),
        notes=notes,
    )


def _place(key: str) -> str:
    """Folders and name without its ending. Folders that begin with `_` or `.` only keep sweeps away from a dataset, and
    `projects/{id}/` is the project, which an alias belongs to anyway."""
    *folders, name = stem_of(key).split("/")
    if project_of(key) != DEFAULT_PROJECT:
        folders = folders[2:]
    return "/".join([*(folder for folder in folders if not folder.startswith(("_", "."))), name])


def uploaded(job: Job) -> DatasetUploaded:
    """The event that announces the job. The same manifest always makes the same event."""
    return DatasetUploaded(
        job_id=job.job_id,
        dataset=_pointer(job.dataset),
        validation_file=_pointer(job.validation_file) if job.validation_file else None,
        spec=job.spec,
        origin=job.origin,
    )


def decided(job: Job, problem: InputError | None) -> tuple[StageOutcome, Event]:
    """How ingest ends for a job, and its event. `problem`: why the job fails."""
    if problem is None:
        return "completed", uploaded(job)
    code, message, param = problem.code, problem.message, problem.param
    return "failed", JobFailed(job_id=job.job_id, stage="ingest", code=code, message=message, param=param)


def _pointer(reference: Reference) -> DatasetPointer:
    return DatasetPointer.model_validate(reference.model_dump())
