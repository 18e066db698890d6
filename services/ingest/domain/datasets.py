"""Which objects are datasets, when they may be taken, and what a drop is called in ingest's memory."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

from shared import ids
from shared.ledger import Entry

DATASET_ENDINGS = (".jsonl", ".ndjson", ".json")
SIDECAR_ENDINGS = (".job.yaml", ".job.yml", ".job.json")
PARTIAL_ENDINGS = (".part", ".partial", ".tmp", ".crdownload", ".filepart", ".swp", "~")

BUSY_SECONDS = 10.0  # so long after the last drop the next one is expected
SWEEP_SHARE = 0.02  # of one core: listing keeps the store and this process busy for about as long as it takes
LONGEST_PAUSE = 30.0  # seconds between two sweeps of the largest bucket


def is_dataset(key: str) -> bool:
    """Names that upload tools give to files they have not finished, and sidecars, are none; nor is what its user keeps
    apart under a name or a folder that begins with `.` or `_`."""
    name = posixpath.basename(key).lower()
    if any(part.startswith((".", "_")) for part in key.split("/")) or name.endswith(PARTIAL_ENDINGS + SIDECAR_ENDINGS):
        return False
    return name.endswith(DATASET_ENDINGS)


def sidecars_of(key: str) -> tuple[str, ...]:
    """Where the job's settings may lie: `name.job.yaml` beside `name.jsonl`. The first that is there counts."""
    stem = posixpath.splitext(key)[0]
    return tuple(stem + ending for ending in SIDECAR_ENDINGS)


def sidecar_prefix(key: str) -> str:
    """What every sidecar of a dataset begins with, and little else."""
    return posixpath.commonprefix(sidecars_of(key))


def settled(entry: Entry, before: str | None, now: float, settle_seconds: float) -> bool:
    """An object that has just been written is looked at twice: it may be one of several quick overwrites."""
    return now - entry.modified >= settle_seconds or before == entry.etag


def drop_name(bucket: str, entry: Entry, etags: Mapping[str, str]) -> str:
    """What a drop is remembered by: other bytes or an edited sidecar are another drop.

    `etags` of the objects around it by key; the sidecars that exist must be among them.
    """
    sidecar = next((etags[key] for key in sidecars_of(entry.key) if key in etags), None)
    return ids.derive("drop", bucket, entry.key, entry.etag, sidecar)


def next_pause(last: float, took: float, quiet: float, shortest: float) -> float:
    """Seconds until the next sweep, after one that took `took` seconds; nothing new was found for `quiet` seconds.

    A bucket that is being filled is looked at often; an idle one ever less, until listing it costs `SWEEP_SHARE`.
    """
    if quiet < BUSY_SECONDS:
        return shortest
    return max(shortest, min(last * 2, took / SWEEP_SHARE, LONGEST_PAUSE))
