"""References to objects in the object store. Events and documents hold references, never the bytes."""

from __future__ import annotations

from shared.events.models import FrozenModel


class Reference(FrozenModel):
    """One object. `etag` and `sha256` (hex) are what the reader verifies; `size` is in bytes."""

    bucket: str
    key: str
    etag: str
    size: int
    sha256: str


class DatasetPointer(FrozenModel):
    """The place of a dataset. A stranger needs to give only bucket and key; ingest looks up the rest."""

    bucket: str
    key: str
    etag: str | None = None
    size: int | None = None
    sha256: str | None = None
    """In hex."""


class FolderReference(FrozenModel):
    """A set of objects under `prefix`; `manifest` is a JSON object `{"files": {name: Reference}}`."""

    bucket: str
    prefix: str
    manifest: Reference
