"""What the ledger holds of an upload, below `uploads/{upload_id}/`."""

from __future__ import annotations

from shared.events import FrozenModel, Reference, StoredFile
from shared.events.limits import DEFAULT_PROJECT, Count, Id, Name, ProjectId
from shared.stages.ledger import upload_prefix


class Upload(FrozenModel):
    """`upload.json`, created once: what a client wants to upload. Times are in seconds since the epoch, by the clock of
    the object store."""

    upload_id: Id
    project: ProjectId = DEFAULT_PROJECT
    filename: Name
    purpose: Id
    mime_type: Name
    bytes: Count
    created_at: float
    expires_at: float
    file_seconds: int | None = None
    """For how long the file is wanted once it is complete."""


class Part(FrozenModel):
    """`parts/{part_id}/part.json`, created once when `parts/{part_id}/content` is complete."""

    part_id: Id
    created_at: float
    content: Reference


class Decision(FrozenModel):
    """`decision.json`, created once: how the upload ended. Whoever is first decides, and everybody else does what it
    says."""

    part_ids: tuple[Id, ...] = ()
    file: StoredFile | None = None
    """None: it was cancelled."""


def upload_key(upload_id: str) -> str:
    return upload_prefix(upload_id) + "upload.json"


def decision_key(upload_id: str) -> str:
    return upload_prefix(upload_id) + "decision.json"


def parts_prefix(upload_id: str) -> str:
    return upload_prefix(upload_id) + "parts/"


def part_key(upload_id: str, part_id: str) -> str:
    return f"{parts_prefix(upload_id)}{part_id}/part.json"


def part_content_key(upload_id: str, part_id: str) -> str:
    return f"{parts_prefix(upload_id)}{part_id}/content"
