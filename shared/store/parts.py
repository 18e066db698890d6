"""Uploads of large files in parts. Each part is a call of its own: it has its own deadline, and the first that fails
ends the upload."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from minio.datatypes import Part

from shared.events import Reference
from shared.store.connection import Connection

PART_SIZE = 16 * 2**20  # up to this size one request, beyond it parts; S3 allows 10,000 parts: 160 GB
PARALLEL = 3


async def upload(connection: Connection, bucket: str, key: str, path: Path) -> Reference:
    """Upload a file as one object, in parts if it is large; nobody sees it before it is complete."""

    def digest() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def whole() -> str:
        headers = {"Content-Type": "application/octet-stream"}
        return connection.client._put_object(bucket, key, path.read_bytes(), headers=headers).etag or ""

    sha256, size = await connection.beside(digest), path.stat().st_size
    if size <= PART_SIZE:
        etag = await connection.file("upload", whole)
    else:
        etag = await _in_parts(connection, bucket, key, path, size)
    return Reference(bucket=bucket, key=key, etag=etag, size=size, sha256=sha256)


async def _in_parts(connection: Connection, bucket: str, key: str, path: Path, size: int) -> str:
    """Returns the ETag."""
    client = connection.client
    headers = {"Content-Type": "application/octet-stream"}
    upload_id = await connection.document("upload", lambda: client._create_multipart_upload(bucket, key, headers))
    free = asyncio.Semaphore(PARALLEL)

    async def send(number: int) -> Part:
        def call() -> str:
            with path.open("rb") as file:
                file.seek((number - 1) * PART_SIZE)
                return str(client._upload_part(bucket, key, file.read(PART_SIZE), None, upload_id, number))

        async with free:
            return Part(number, await connection.file("upload_part", call))

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(send(number)) for number in range(1, -(-size // PART_SIZE) + 1)]
        sent = [task.result() for task in tasks]
        done = await connection.file("upload", lambda: client._complete_multipart_upload(bucket, key, upload_id, sent))
    except BaseException as error:
        # parts that belong to no object would stay in the store
        connection.leave(lambda: client._abort_multipart_upload(bucket, key, upload_id))
        if isinstance(error, BaseExceptionGroup):
            raise error.exceptions[0] from None
        raise
    return str(done.etag).strip('"')
