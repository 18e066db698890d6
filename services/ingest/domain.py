"""What is a dataset, what did its user ask for, and which job is that: pure decisions."""

from __future__ import annotations

import posixpath
from typing import Any

import yaml
from pydantic import ValidationError

from shared import ids
from shared.errors import InputError
from shared.events import DatasetPointer, DatasetUploaded, Job, JobSpec, Origin, Reference
from shared.ledger import Entry

DATASET_ENDINGS = (".jsonl", ".ndjson", ".json")
SIDECAR_ENDINGS = (".job.yaml", ".job.yml", ".job.json")
PARTIAL_ENDINGS = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp", "~")


def is_dataset(key: str) -> bool:
    """Names that upload tools give to files they have not finished, and sidecars, are none; nor is what its user keeps
    apart under a name or a folder that begins with `.` or `_`."""
    name = posixpath.basename(key).lower()
    if any(part.startswith((".", "_")) for part in key.split("/")) or name.endswith(PARTIAL_ENDINGS + SIDECAR_ENDINGS):
        return False
    return name.endswith(DATASET_ENDINGS)


def sidecars_of(key: str) -> tuple[str, ...]:
    """Where the job's settings may lie: `name.job.yaml` beside `name.jsonl`."""
    stem = posixpath.splitext(key)[0]
    return tuple(stem + ending for ending in SIDECAR_ENDINGS)


def settled(entry: Entry, before: str | None, now: float, settle_seconds: float) -> bool:
    """An object that has just been written is looked at twice: it may be one of several quick overwrites."""
    return now - entry.modified >= settle_seconds or before == entry.etag


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
    asked = spec.model_dump(mode="json", exclude_defaults=True) | ({"unreadable": salt} if salt else {})
    job_id = ids.job_id(dataset.bucket, dataset.key, dataset.sha256, asked)
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


def resolve_base(spec: JobSpec, default: str, allowed: tuple[str, ...]) -> str:
    """The base model of a job.

    Raises:
        InputError: the job names a base that is not allowed here.
    """
    base = spec.model or default
    if base != default and base not in allowed:
        known = ", ".join((default, *allowed))
        raise InputError(
            "model_not_found",
            f"The model {base!r} is not available for fine-tuning here; use one of: {known}. "
            "The operator adds others in TUNESTREAM_MODEL__ALLOWED.",
            "model",
        )
    return base


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
