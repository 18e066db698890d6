"""The names by which ingest remembers what was dropped or announced, and which the janitor must know: a marker whose
object is still there stays."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from typing import Literal

from shared import ids
from shared.events.limits import DEFAULT_PROJECT
from shared.stages.ledger import Entry

SEEN = "ingest/seen/"
"""Markers: what was handled. `{}`, or something longer while an event is not known to be published."""
INBOX = "ingest/inbox/"
"""Announcements of other programs."""
DONE = b"{}"
"""The marker of a dataset whose job needs nothing more. Any other marker is longer, so a listing tells them apart."""

SIDECAR_ENDINGS = (".job.yaml", ".job.yml", ".job.json")
MAX_KEY_BYTES = 1024  # of S3

Kind = Literal["drop", "event"]

_PROJECT_FOLDER = re.compile(r"projects/(?P<project>[A-Za-z0-9][A-Za-z0-9_-]{0,63})/")


def stem_of(key: str) -> str:
    """The key of a dataset without its ending, `.csv.gz` for example."""
    stem, ending = posixpath.splitext(key)
    return posixpath.splitext(stem)[0] if ending.lower() == ".gz" else stem


def sidecars_of(key: str) -> tuple[str, ...]:
    """The keys where the job's settings may be: `name.job.yaml` beside `name.jsonl`. The first that exists counts.

    A key that is too long for the store is left out; nothing can be there.
    """
    stem = stem_of(key)
    return tuple(stem + ending for ending in SIDECAR_ENDINGS if len((stem + ending).encode()) <= MAX_KEY_BYTES)


def drop_name(bucket: str, entry: Entry, etags: Mapping[str, str]) -> str:
    """The name by which a drop is remembered. Other bytes or an edited sidecar make it another drop. `etags` maps the
    keys of other objects to their ETags; it must hold the sidecars that exist.
    """
    sidecar = next((etags[key] for key in sidecars_of(entry.key) if key in etags), None)
    return ids.derive("drop", bucket, entry.key, entry.etag, sidecar)


def project_of(key: str) -> str:
    """The project that a dropped dataset belongs to: that of its folder `projects/{id}/`, else the default one."""
    match = _PROJECT_FOLDER.match(key)
    return match["project"] if match else DEFAULT_PROJECT


def place_of(bucket: str, key: str) -> str:
    """Where a drop is, for people; also the origin of what comes of it."""
    return f"s3://{bucket}/{key}"


def version_of(entry: Entry) -> str:
    """It changes whenever the object is written again, even with the same bytes."""
    return str(int(entry.modified))


def origin_id(kind: Kind, origin: str) -> str:
    """How the ids begin of all that ever came from one origin."""
    return f"{ids.derive('origin', kind, origin, chars=16)}-"


def quarantined_id(kind: Kind, origin: str, name: str, version: str = "") -> str:
    """The name in the quarantine of a drop or an event, and of its marker if it will not be looked at again."""
    return f"{origin_id(kind, origin)}{ids.derive('quarantined', name, version, chars=12)}"
