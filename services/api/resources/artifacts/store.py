"""Reads the artifacts of jobs from the object store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import BinaryIO

from shared.events import Reference
from shared.store.objects import ObjectStore


async def open_verified(objects: ObjectStore, reference: Reference) -> BinaryIO:
    """A temporary file with the bytes of `reference`. It disappears when the caller closes it.

    The digest is verified first, so a client never gets the beginning of a damaged file; and memory stays flat.

    Raises:
        CorruptObject: the bytes are not those of the reference.
        StoreUnavailable: the object store did not answer.
    """
    with tempfile.TemporaryDirectory(prefix="tunestream-api-") as folder:
        path = Path(folder) / "file"
        await objects.download(reference, path)
        return path.open("rb")  # an open file outlives its name
