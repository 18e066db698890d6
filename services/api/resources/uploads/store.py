"""Keeps uploads and their parts in the object store, and makes files of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from services.api.resources.files.domain import (
    HEAD_BYTES,
    check_content,
    check_name,
    check_purpose,
    file_id_of,
    lifetime,
)
from services.api.resources.files.store import find_stored
from services.api.resources.forms import FileForm
from services.api.resources.new_ids import new_id
from services.api.resources.uploads.documents import (
    Decision,
    Part,
    Upload,
    decision_key,
    part_content_key,
    part_key,
    parts_prefix,
    upload_key,
)
from services.api.resources.uploads.domain import (
    LIFE_SECONDS,
    check_md5,
    check_open,
    check_part_ids,
    check_size,
    is_upload_id,
    unknown_part,
)
from shared.errors import AlreadyExists, CorruptObject
from shared.events import FrozenModel, StoredFile, Tombstone
from shared.stages.ledger import file_content_key, file_meta_key, tombstone_key
from shared.store.objects import ObjectStore

READS_AT_ONCE = 16
D = TypeVar("D", bound=FrozenModel)


async def create(
    objects: ObjectStore,
    project: str,
    *,
    size: int,
    filename: str,
    mime_type: str,
    purpose: str,
    expires_after: Mapping[str, Any] | None,
) -> Upload:
    """Begin an upload.

    Raises:
        InputError: no file can be made of it.
        StoreUnavailable: the store does not answer.
    """
    now = objects.now()
    upload = Upload(
        upload_id=new_id("upload_"),
        project=project,
        filename=check_name(filename),
        purpose=check_purpose(purpose),
        mime_type=mime_type,
        bytes=size,
        created_at=now,
        expires_at=now + LIFE_SECONDS,
        file_seconds=lifetime(expires_after),
    )
    await _write(objects, upload_key(upload.upload_id), upload)
    return upload


async def find(objects: ObjectStore, upload_id: str, project: str) -> Upload | None:
    """An upload of a project; None: there is none."""
    if not is_upload_id(upload_id):
        return None
    upload = await _read(objects, upload_key(upload_id), Upload)
    return upload if upload and upload.project == project else None


async def decision(objects: ObjectStore, upload: Upload) -> Decision | None:
    """How the upload ended; None: it has not."""
    return await _read(objects, decision_key(upload.upload_id), Decision)


async def add_part(objects: ObjectStore, upload: Upload, form: FileForm) -> Part:
    """Store one part. Parts may come in parallel, and in any order.

    Raises:
        InputError, ApiError: the upload has ended, or the form is not as it should be. Nothing is stored.
        StoreUnavailable: the store did not take it.
    """
    check_open(upload, await decision(objects, upload), objects.now())
    part_id = new_id("part_")
    content = await objects.write_stream(part_content_key(upload.upload_id, part_id), form.chunks())
    check_open(upload, await decision(objects, upload), objects.now())
    part = Part(part_id=part_id, created_at=objects.now(), content=content)
    await _write(objects, part_key(upload.upload_id, part_id), part)
    return part


async def complete(objects: ObjectStore, upload: Upload, part_ids: Sequence[str], md5: str | None) -> Decision:
    """Make a file of the parts, in this order. Asking again, or twice at once, gives the same file.

    Raises:
        InputError: the upload has ended otherwise, or the parts are not all of it.
        CorruptObject: a part is not what was stored.
        StoreUnavailable: the store does not answer.
    """
    check_part_ids(part_ids)
    made = await decision(objects, upload)
    if made is None:
        check_open(upload, None, objects.now())
        try:
            made = await _decide(objects, upload, part_ids, md5)
        except (CorruptObject, AlreadyExists):
            # somebody else has completed or cancelled it, and the janitor may have removed the parts since
            made = await decision(objects, upload)
            if made is None:
                raise
    if made.file is None or made.part_ids != tuple(part_ids):
        check_open(upload, made, objects.now())
    await _carry_out(objects, upload, made)
    return made


async def cancel(objects: ObjectStore, upload: Upload) -> Decision:
    """End the upload without a file. Asking again changes nothing.

    Raises:
        InputError: it is completed, or has expired.
        StoreUnavailable: the store does not answer.
    """
    made = await decision(objects, upload)
    if made is None:
        check_open(upload, None, objects.now())
        made = Decision()
        try:
            await _write(objects, decision_key(upload.upload_id), made)
        except AlreadyExists:
            made = await decision(objects, upload)
    if made is not None and made.file is not None:
        check_open(upload, made, objects.now())
    await _bury_parts(objects, upload, "cancelled")
    return made or Decision()


async def file_of(objects: ObjectStore, upload: Upload, made: Decision | None) -> StoredFile | None:
    """The file that an upload became; None: there is none, or it was deleted since."""
    if made is None or made.file is None:
        return None
    return await find_stored(objects, made.file.file_id, upload.project)


# --- a file of the parts ------------------------------------------------------------------------------------------


async def _decide(objects: ObjectStore, upload: Upload, part_ids: Sequence[str], md5: str | None) -> Decision:
    """Write the content, and only then decide: a wrong checksum must leave the upload open. Nobody sees the content
    before. Another order of the parts is another file, so that two who complete at once do not disturb each other."""
    parts = await _parts(objects, upload, part_ids)
    check_size(upload, parts)
    file_id = file_id_of("upload", upload.upload_id, list(part_ids))
    content = await objects.write_stream(file_content_key(file_id), _checked(objects, upload, parts, md5))
    now = objects.now()
    file = StoredFile(
        file_id=file_id,
        project=upload.project,
        filename=upload.filename,
        purpose=upload.purpose,
        created_at=now,
        content=content,
        expires_at=None if upload.file_seconds is None else now + upload.file_seconds,
    )
    made = Decision(part_ids=tuple(part_ids), file=file)
    await _write(objects, decision_key(upload.upload_id), made)
    return made


async def _parts(objects: ObjectStore, upload: Upload, part_ids: Sequence[str]) -> list[Part]:
    free = asyncio.Semaphore(READS_AT_ONCE)

    async def one(number: int, part_id: str) -> Part | None:
        async with free:
            return await _read(objects, part_key(upload.upload_id, part_id), Part)

    found = await asyncio.gather(*(one(number, part_id) for number, part_id in enumerate(part_ids)))
    for number, part in enumerate(found):
        if part is None:
            if (made := await decision(objects, upload)) is not None:
                raise AlreadyExists(str(made.part_ids))
            raise unknown_part(part_ids[number], number)
    return [part for part in found if part is not None]


async def _checked(
    objects: ObjectStore, upload: Upload, parts: Sequence[Part], md5: str | None
) -> AsyncIterator[bytes]:
    """The bytes of the parts. If they are not what the client has said this raises at the end, and so no object comes
    of them."""
    digest = hashlib.md5(usedforsecurity=False)
    head, size = b"", 0
    for part in parts:
        async for chunk in objects.stream(part.content):
            head += chunk[: HEAD_BYTES - len(head)]
            size += len(chunk)
            if md5 is not None:
                await asyncio.to_thread(digest.update, chunk)
            yield chunk
    if md5 is not None:
        check_md5(md5, digest.hexdigest())
    check_content(head, size, upload.purpose)


async def _carry_out(objects: ObjectStore, upload: Upload, made: Decision) -> None:
    """Do what the decision says, as often as it is asked for."""
    file = made.file
    if file is None:
        return
    # without its content the file was deleted, long ago
    if await objects.exists(file_content_key(file.file_id)):
        with contextlib.suppress(AlreadyExists):
            await _write(objects, file_meta_key(file.file_id), file)
    await _bury_parts(objects, upload, "completed")


async def _bury_parts(objects: ObjectStore, upload: Upload, reason: str) -> None:
    stone = Tombstone(prefix=parts_prefix(upload.upload_id), reason=f"the upload is {reason}", at=objects.now())
    with contextlib.suppress(AlreadyExists):
        await _write(objects, tombstone_key("uploads", upload.upload_id), stone)


async def _read(objects: ObjectStore, key: str, kind: type[D]) -> D | None:
    found = await objects.get(key)
    return kind.model_validate_json(found[0]) if found else None


async def _write(objects: ObjectStore, key: str, document: FrozenModel) -> None:
    await objects.create(key, document.model_dump_json().encode())
