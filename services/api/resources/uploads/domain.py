"""Decides what may become of an upload, and shows it as JSON."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from services.api.resources.files.domain import file_view
from services.api.resources.lists import whole_seconds
from services.api.resources.uploads.documents import Decision, Part, Upload
from shared.errors import InputError
from shared.events import StoredFile

LARGEST_PART = 64 * 2**20
LARGEST_UPLOAD = 8 * 2**30
MOST_PARTS = 10_000
LIFE_SECONDS = 3600
"""Within which an upload is completed."""

Status: TypeAlias = Literal["pending", "completed", "cancelled", "expired"]

_UPLOAD_ID = re.compile(r"upload_[a-z2-7]{24}")
_PART_ID = re.compile(r"part_[a-z2-7]{24}")


def is_upload_id(text: str) -> bool:
    """Whether an upload may have this id. Any other text could lead elsewhere when it becomes part of a key."""
    return _UPLOAD_ID.fullmatch(text) is not None


def is_part_id(text: str) -> bool:
    return _PART_ID.fullmatch(text) is not None


def status_of(upload: Upload, decision: Decision | None, now: float) -> Status:
    if decision is not None:
        return "completed" if decision.file else "cancelled"
    return "expired" if upload.expires_at <= now else "pending"


def check_open(upload: Upload, decision: Decision | None, now: float) -> None:
    """Check that the upload may still change.

    Raises:
        InputError: it has ended.
    """
    status = status_of(upload, decision, now)
    if status == "expired":
        message = f"Upload {upload.upload_id} expired: an upload is completed within an hour. Create another one."
        raise InputError("upload_expired", message, "upload_id")
    if status != "pending":
        message = f"Upload {upload.upload_id} is already {status}; it cannot change any more. Create another one."
        raise InputError(f"upload_{status}", message, "upload_id")


def check_part_ids(part_ids: Sequence[str]) -> None:
    """Check that the list can be one of parts.

    Raises:
        InputError: it is empty, or names a part twice, or something that is no part.
    """
    if not part_ids:
        raise InputError("invalid_part_ids", "'part_ids' is empty; list the ids of all parts in order.", "part_ids")
    seen = set[str]()
    for number, part_id in enumerate(part_ids):
        if not is_part_id(part_id):
            raise unknown_part(part_id, number)
        if part_id in seen:
            message = f"'part_ids' names {part_id} more than once; list each part once."
            raise InputError("repeated_part", message, f"part_ids.{number}")
        seen.add(part_id)


def unknown_part(part_id: str, number: int) -> InputError:
    message = f"No such part: {part_id[:100]!r}. List the ids that adding parts to this upload has answered."
    return InputError("part_not_found", message, f"part_ids.{number}")


def check_size(upload: Upload, parts: Sequence[Part]) -> None:
    """Check that the parts are all of the upload.

    Raises:
        InputError: they have more or fewer bytes than it was created with.
    """
    size = sum(part.content.size for part in parts)
    if size != upload.bytes:
        message = (
            f"The parts have {size:,} bytes together, but the upload was created with {upload.bytes:,} bytes; list "
            f"every part once, and give the upload the size of the file."
        )
        raise InputError("wrong_size", message, "part_ids")


def check_md5(wanted: str | None, found: str) -> None:
    """Compare the checksum of a client with that of its bytes. Both are in hex.

    Raises:
        InputError: they differ.
    """
    if wanted is not None and wanted.strip().lower() != found:
        message = f"The md5 of the parts in this order is {found}, not the given one; check their order and bytes."
        raise InputError("wrong_md5", message, "md5")


def upload_view(upload: Upload, decision: Decision | None, file: StoredFile | None, now: float) -> dict[str, Any]:
    """The JSON object of an upload. `file`: None if it has none, or not any more."""
    return {
        "id": upload.upload_id,
        "object": "upload",
        "bytes": upload.bytes,
        "created_at": whole_seconds(upload.created_at),
        "expires_at": whole_seconds(upload.expires_at),
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": status_of(upload, decision, now),
        "file": file_view(file) if file else None,
    }


def part_view(upload_id: str, part: Part) -> dict[str, Any]:
    return {
        "id": part.part_id,
        "object": "upload.part",
        "created_at": whole_seconds(part.created_at),
        "upload_id": upload_id,
    }
