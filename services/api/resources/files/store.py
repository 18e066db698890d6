"""Stores files in the object store, finds them there, and buries them. A file exists when `meta.json` does and no
tombstone names it."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import ValidationError

from services.api.projection import Projection
from services.api.resources.files.domain import (
    HEAD_BYTES,
    check_content,
    check_name,
    check_purpose,
    is_expired,
    job_of,
    lifetime,
    result_file,
)
from services.api.resources.forms import FileForm, nested
from services.api.resources.new_ids import new_id
from shared.errors import AlreadyExists
from shared.events import StoredFile, Tombstone
from shared.ids import is_file_id, is_job_id
from shared.stages.ledger import file_content_key, file_meta_key, file_prefix, tombstone_key
from shared.store.objects import ObjectStore


async def create(objects: ObjectStore, form: FileForm, project: str) -> StoredFile:
    """Store the file of a form. Nobody sees it before all of the form is there and right.

    Raises:
        InputError, ApiError: the form is not as it should be. Nothing is stored.
        StoreUnavailable: the store did not take it.
    """
    file_id = new_id("file-")
    content = await objects.write_stream(file_content_key(file_id), _checked(form))
    now, seconds = objects.now(), lifetime(nested(form.fields, "expires_after"))
    file = StoredFile(
        file_id=file_id,
        project=project,
        filename=check_name(form.filename),
        purpose=check_purpose(form.fields.get("purpose")),
        created_at=now,
        content=content,
        expires_at=None if seconds is None else now + seconds,
    )
    await objects.create(file_meta_key(file_id), file.model_dump_json().encode())
    return file


async def _checked(form: FileForm) -> AsyncIterator[bytes]:
    """The bytes of the file. If anything about the form is wrong this raises, at the latest at the end, and so no
    object comes of it."""
    if "purpose" in form.fields:
        check_purpose(form.fields["purpose"])
    head, size = b"", 0
    async for chunk in form.chunks():
        head += chunk[: HEAD_BYTES - len(head)]
        size += len(chunk)
        yield chunk
    purpose = check_purpose(form.fields.get("purpose"))
    lifetime(nested(form.fields, "expires_after"))
    check_name(form.filename)
    check_content(head, size, purpose)


async def find(objects: ObjectStore, projection: Projection, file_id: str, project: str) -> StoredFile | None:
    """A file of a project, or the result file of a job; None: there is none, or not any more.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    # in this order: the janitor deletes the document first and the tombstone last
    if not is_file_id(file_id) or await is_buried(objects, file_id):
        return None
    return await find_even_if_deleted(objects, projection, file_id, project)


async def find_even_if_deleted(
    objects: ObjectStore, projection: Projection, file_id: str, project: str
) -> StoredFile | None:
    """The same, and also a file that was deleted, until the janitor has carried that out. Raises like `find`."""
    if not (job_id := job_of(file_id)):
        return await _stored(objects, file_id, project) if is_file_id(file_id) else None
    state = await projection.find(job_id, project) if is_job_id(job_id) else None
    return result_file(state) if state else None


async def find_stored(objects: ObjectStore, file_id: str, project: str) -> StoredFile | None:
    """A file of a project that was stored, such as the dataset of a job; None: there is none, or not any more.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    if not is_file_id(file_id) or await is_buried(objects, file_id):
        return None
    return await _stored(objects, file_id, project)


async def _stored(objects: ObjectStore, file_id: str, project: str) -> StoredFile | None:
    found = await objects.get(file_meta_key(file_id))
    try:
        file = StoredFile.model_validate_json(found[0]) if found else None
    except ValidationError:
        return None
    return file if file and file.project == project and not is_expired(file, objects.now()) else None


async def is_buried(objects: ObjectStore, file_id: str) -> bool:
    return await objects.exists(tombstone_key("files", file_id))


async def bury(objects: ObjectStore, file_id: str) -> bool:
    """Delete a file: from now on nobody finds it, and the janitor removes it. False: somebody else has deleted it."""
    stone = Tombstone(prefix=file_prefix(file_id), reason="deleted by its owner", at=objects.now())
    try:
        await objects.create(tombstone_key("files", file_id), stone.model_dump_json().encode())
    except AlreadyExists:
        return False
    return True
