"""Uploads a dataset and its settings, in an order in which ingest never combines a dataset with the settings of
another."""

from __future__ import annotations

import hashlib
import posixpath
from pathlib import Path
from typing import TYPE_CHECKING

from cli.jobs.spec import to_yaml
from cli.terminal import CliError
from services.ingest.domain.datasets import DATASET_ENDINGS, is_dataset
from shared import ids
from shared.drops import sidecars_of, stem_of
from shared.errors import InputError
from shared.events import DatasetPointer, JobSpec, Reference

if TYPE_CHECKING:
    from shared.store.objects import ObjectStore


def dataset_key(file: Path, name: str | None) -> str:
    """The key of a dataset: its file name, or `name`.

    Raises:
        CliError: ingest ignores objects of that name.
    """
    key = name or file.name
    if not is_dataset(key) or key.startswith("/"):
        endings = ", ".join(DATASET_ENDINGS)
        raise CliError(
            f"{key}: only names that end with {endings} (or these and .gz) and begin with a letter or digit "
            "are accepted",
            "convert the file, or give it another name with --name",
        )
    return key


def check_file(file: Path) -> Path:
    """Check that a file exists and is not empty. Returns the file.

    Raises:
        CliError: it does not exist, or is empty.
    """
    if not file.is_file():
        raise CliError(f"there is no file {file}")
    if file.stat().st_size == 0:
        raise CliError(f"{file} is empty", "write one JSON object per line into it")
    return file


async def submit(
    datasets: ObjectStore, file: Path, key: str, spec: JobSpec, validation: Path | None = None
) -> tuple[str, JobSpec]:
    """Upload a dataset. Returns the id of the job that ingest will make of it, and the settings of that job.

    Raises:
        StoreUnavailable: the object store does not answer.
        ConfigError: the object store refuses the request.
    """
    if validation is not None:
        spec = spec.model_copy(update={"validation_file": await _upload_validation(datasets, validation, key)})
    present = await _present(datasets, key)
    digest = _sha256(file)
    if present is not None and present.sha256 != digest:
        # without this, a sweep between the next two writes would combine the old rows with the new settings
        await datasets.delete(key)
    await _write_settings(datasets, key, spec)
    if present is None or present.sha256 != digest:
        await datasets.upload(key, file)
    return ids.job_id(datasets.bucket, key, digest, spec), spec


async def _upload_validation(datasets: ObjectStore, file: Path, key: str) -> DatasetPointer:
    folder, name = posixpath.split(key)
    # because of the underscore, ingest does not make a job of it
    target = posixpath.join(folder, f"_{stem_of(name)}.validation{file.name[len(stem_of(file.name)) :] or '.jsonl'}")
    reference = await datasets.upload(target, file)
    return DatasetPointer(bucket=reference.bucket, key=reference.key, sha256=reference.sha256)


async def _present(datasets: ObjectStore, key: str) -> Reference | None:
    if not any(entry.key == key for entry in await datasets.list(key)):
        return None
    try:
        return await datasets.describe(DatasetPointer(bucket=datasets.bucket, key=key))
    except InputError:  # deleted since it was listed
        return None


async def _write_settings(datasets: ObjectStore, key: str, spec: JobSpec) -> None:
    """Write the sidecar, unless all settings are defaults, and delete sidecars of earlier submissions."""
    wanted = sidecars_of(key)[0] if ids.chosen_settings(spec) else None
    there = {entry.key for entry in await datasets.list(stem_of(key))}
    if wanted:
        document = to_yaml(spec)
        found = await datasets.get(wanted) if wanted in there else None
        if found is None or found[0] != document:
            await datasets.put(wanted, document)
    for sidecar in sidecars_of(key):
        if sidecar in there and sidecar != wanted:
            await datasets.delete(sidecar)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
