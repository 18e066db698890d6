"""What did the user of a dataset ask for, and which job is that?"""

from __future__ import annotations

import posixpath
from typing import Any

import yaml
from pydantic import ValidationError

from shared import ids
from shared.errors import InputError
from shared.events import DatasetPointer, DatasetUploaded, Job, JobSpec, Origin, Reference


def parse_spec(text: bytes, where: str) -> JobSpec:
    """Settings as a person writes them: YAML, of which JSON is a part.

    Raises:
        InputError: names the field and what is wrong with it.
    """
    try:
        data: Any = yaml.safe_load(text.decode("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError("invalid_job_settings", f"{where}{line}: not YAML; correct it and drop it again.") from None
    if not isinstance(data, dict):
        raise InputError("invalid_job_settings", f"{where}: write `field: value` lines, for example `suffix: support`.")
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        fields = [".".join(str(part) for part in problem["loc"]) for problem in problems]
        told = "; ".join(f"{field}: {problem['msg']}" for field, problem in zip(fields, problems, strict=True))
        raise InputError("invalid_job_settings", f"{where}: {told}.", fields[0]) from None


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
    salt: str | None = None,
) -> Job:
    """The manifest. The same bytes at the same place with the same settings are the same job.

    `salt` tells jobs apart whose settings could not be read at all.
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
        model=ids.model_id(job_id, base, organization, spec.suffix),
        alias=spec.alias or ids.slug(spec.suffix or stem) or "model",
        origin=origin,
        traceparent=traceparent,
    )


def uploaded(job: Job) -> DatasetUploaded:
    """The event of a manifest: the same whenever it is built."""
    return DatasetUploaded(
        job_id=job.job_id,
        dataset=_pointer(job.dataset),
        validation_file=_pointer(job.validation_file) if job.validation_file else None,
        spec=job.spec,
        origin=job.origin,
    )


def _pointer(reference: Reference) -> DatasetPointer:
    return DatasetPointer.model_validate(reference.model_dump())
