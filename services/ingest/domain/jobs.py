"""Which job a dataset and its settings make, and the event that announces it."""

from __future__ import annotations

import posixpath

from shared import ids
from shared.events import DatasetPointer, DatasetUploaded, FolderReference, Job, JobSpec, Origin, Reference


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
    salt: str | None = None,
) -> Job:
    """The manifest of a job. The same bytes at the same place with the same settings are the same job.

    `salt` distinguishes jobs whose settings could not be read. `now` is in seconds since the epoch.
    """
    job_id = ids.job_id(dataset.bucket, dataset.key, dataset.sha256, spec, unreadable=salt)
    stem = posixpath.splitext(posixpath.basename(dataset.key))[0]
    return Job(
        job_id=job_id,
        created_at=now,
        dataset=dataset,
        validation_file=validation_file,
        spec=spec,
        base=base,
        start_from=start_from,
        model=ids.model_id(job_id, base, organization, spec.suffix),
        alias=spec.alias or ids.slug(spec.suffix or stem) or "model",
        origin=origin,
        traceparent=traceparent,
    )


def uploaded(job: Job) -> DatasetUploaded:
    """The event that announces the job. The same manifest always makes the same event."""
    return DatasetUploaded(
        job_id=job.job_id,
        dataset=_pointer(job.dataset),
        validation_file=_pointer(job.validation_file) if job.validation_file else None,
        spec=job.spec,
        origin=job.origin,
    )


def _pointer(reference: Reference) -> DatasetPointer:
    return DatasetPointer.model_validate(reference.model_dump())
