"""References to objects in the object store. Events and documents hold references, never the bytes."""

from __future__ import annotations

from shared.events.limits import BucketName, Count, Id, Name, ObjectKey, Sha256
from shared.events.models import FrozenModel


class Reference(FrozenModel):
    """One object. `etag` and `sha256` (hex) are what the reader verifies; `size` is in bytes."""

    bucket: Id
    key: Name
    etag: Id
    size: Count
    sha256: Id


class DatasetPointer(FrozenModel):
    """The place of a dataset. A stranger needs to give only bucket and key; ingest looks up the rest."""

    bucket: BucketName
    key: ObjectKey
    etag: Id | None = None
    size: Count | None = None
    sha256: Sha256 | None = None
    """In hex."""


class FolderReference(FrozenModel):
    """A set of objects under `prefix`; `manifest` is a JSON object `{"files": {name: Reference}}`."""

    bucket: Id
    prefix: Name
    manifest: Reference
