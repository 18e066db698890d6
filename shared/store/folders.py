"""Folders in the object store: a set of objects under one prefix, and a manifest that names them all.

The manifest is written last, so a folder that has one is complete.
"""

from __future__ import annotations

import hashlib

from shared.events import FolderReference, Reference
from shared.stages.ledger import Ledger


def manifest_key(prefix: str) -> str:
    """The key of the manifest of the folder `prefix`, with or without its last slash."""
    return f"{prefix.rstrip('/')}/manifest.json"


def folder_reference(bucket: str, prefix: str, manifest: bytes, etag: str) -> FolderReference:
    """The reference of a folder. `manifest`: the bytes of its manifest, whose ETag is `etag`."""
    reference = Reference(
        bucket=bucket,
        key=manifest_key(prefix),
        etag=etag,
        size=len(manifest),
        sha256=hashlib.sha256(manifest).hexdigest(),
    )
    return FolderReference(bucket=bucket, prefix=f"{prefix.rstrip('/')}/", manifest=reference)


async def find_folder(ledger: Ledger, bucket: str, prefix: str) -> FolderReference | None:
    """The reference of the folder `prefix` in `bucket`, which `ledger` reads. None when it is not complete, or gone."""
    found = await ledger.get(manifest_key(prefix))
    return None if found is None else folder_reference(bucket, prefix, *found)
