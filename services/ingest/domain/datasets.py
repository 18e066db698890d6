"""Which objects are datasets, and when they may be read."""

from __future__ import annotations

import posixpath

from services.ingest.domain.failures import UNREADABLE
from shared.drops import SIDECAR_ENDINGS, project_of, stem_of
from shared.errors import InputError
from shared.events import DatasetPointer
from shared.events.limits import DEFAULT_PROJECT
from shared.stages.ledger import Entry

DATASET_ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".xlsx")
"""Each may be followed by `.gz`."""
PARTIAL_ENDINGS = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp", "~")

BUSY_SECONDS = 10.0  # seconds after a drop in which another one is likely
SWEEP_SHARE = 0.02  # share of one core; a listing keeps a core busy for about as long as it takes
LONGEST_PAUSE = 30.0  # seconds between two sweeps of the largest bucket


def is_dataset(key: str) -> bool:
    """Whether an object is a dataset, by its name. Sidecars and the unfinished files of upload tools are not datasets.
    Neither is any object whose name or folder begins with `.` or `_`: users keep there what ingest must ignore.
    """
    name = posixpath.basename(key).lower()
    if any(part.startswith((".", "_")) for part in key.split("/")) or name.endswith(PARTIAL_ENDINGS + SIDECAR_ENDINGS):
        return False
    return name.removesuffix(".gz").endswith(DATASET_ENDINGS)


def check_dataset(dataset: DatasetPointer, system_bucket: str) -> None:
    """Check that a job may be made of a dataset that was dropped or announced. It looks at the names alone, so the
    answer does not tell whether there is such an object.

    Raises:
        InputError: the dataset is in the bucket that holds the files of all projects, and everything else.
    """
    if dataset.bucket == system_bucket:
        raise InputError(UNREADABLE, _system(dataset), "dataset")


def check_validation_file(wanted: DatasetPointer, system_bucket: str, project: str) -> None:
    """Check that a job of `project` may use a validation file that its settings or its event name, as `check_dataset`
    does.

    Raises:
        InputError: it is in the system's own bucket, or another project's.
    """
    if wanted.bucket == system_bucket:
        raise InputError("invalid_validation_file", _system(wanted), "validation_file")
    if project_of(wanted.key) != project:
        where = "outside of projects/" if project == DEFAULT_PROJECT else f"below projects/{project}/"
        message = f"{wanted.bucket}/{wanted.key} is not of the job's project, {project}; put the file {where}."
        raise InputError("invalid_validation_file", message, "validation_file")


def _system(pointer: DatasetPointer) -> str:
    return (
        f"{pointer.bucket}/{pointer.key} is in the bucket that Tunestream keeps for itself; put the file into another "
        "bucket, or upload it and name it in POST /v1/fine_tuning/jobs."
    )


def too_long_for_files(key: str) -> bool:
    """Whether a store that keeps objects as files, such as MinIO, refuses the key: a part of it may have 255 bytes."""
    return max(len(part.encode()) for part in key.split("/")) > 255


def sidecar_prefix(key: str) -> str:
    """The longest prefix that all sidecars of a dataset have."""
    return stem_of(key) + posixpath.commonprefix(SIDECAR_ENDINGS)


def settled(entry: Entry, before: str | None, now: float, settle_seconds: float) -> bool:
    """Whether an object may be read. One that was just written must still have the ETag of the last sweep: it may be
    one of several quick overwrites. `now` and `entry.modified` are in seconds since the epoch."""
    return now - entry.modified >= settle_seconds or before == entry.etag


def next_pause(last: float, took: float, quiet: float, shortest: float) -> float:
    """Seconds until the next sweep. The last one took `took` seconds; for `quiet` seconds nothing new was found.

    A bucket that is being filled is listed often. An idle bucket is listed less and less often, until listing takes no
    more than `SWEEP_SHARE` of a core.
    """
    if quiet < BUSY_SECONDS:
        return shortest
    return max(shortest, min(last * 2, took / SWEEP_SHARE, LONGEST_PAUSE))
