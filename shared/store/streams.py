"""Objects as streams, in flat memory whatever their size: at most two parts of one are held at a time, and no thread is
held while the other side is slow."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from functools import partial
from itertools import islice
from typing import Any

from minio.datatypes import Part
from minio.error import S3Error

from shared.errors import CorruptObject, StoreUnavailable
from shared.events import Reference
from shared.retry import Backoff, retry
from shared.store import names, verified
from shared.store.connection import Connection

PART_SIZE = 8 * 2**20
"""Of a written object; S3 allows 10,000 parts."""
RANGE = 4 * 2**20
"""Bytes that are read with one request."""
MOST_PARTS = 10_000
RETRIES, PAUSES = 6, Backoff(0.5, 8.0)
"""Of a range that cannot be read: about twenty seconds."""

_HEADERS = {"Content-Type": "application/octet-stream"}


class _Writing:
    """One object that is being written. While a part is sent, the next one fills."""

    def __init__(self, connection: Connection, bucket: str, key: str) -> None:
        self._connection, self._bucket, self._key = connection, bucket, key
        self._digest = hashlib.sha256()
        self._size = 0
        self._upload_id: str | None = None
        self._sent: list[Part] = []
        self._sending: asyncio.Task[None] | None = None

    async def write(self, chunks: AsyncIterator[bytes]) -> Reference:
        held, size = list[bytes](), 0
        async for chunk in chunks:
            start = 0
            while start < len(chunk):
                if size == PART_SIZE:  # and there is more: all parts but the last are of this size
                    await self._send(held)
                    size = 0
                piece = chunk[start : start + PART_SIZE - size]
                held.append(piece)
                start += len(piece)
                size += len(piece)
        if self._upload_id is None:
            etag = await self._whole(b"".join(held))
        else:
            await self._send(held)
            etag = await self._complete(self._upload_id)
        return Reference(
            bucket=self._bucket, key=self._key, etag=etag, size=self._size, sha256=self._digest.hexdigest()
        )

    async def _whole(self, data: bytes) -> str:
        def call() -> str:
            self._count(data)
            return str(self._client._put_object(self._bucket, self._key, data, headers={**_HEADERS}).etag or "")

        return await self._connection.file("upload", call)

    async def _send(self, held: list[bytes]) -> None:
        """Send what is held as the next part, as soon as the one before it is there."""
        await self._sent_so_far()
        if len(self._sent) == MOST_PARTS:
            raise names.refused("EntityTooLarge")
        if self._upload_id is None:
            client, headers = self._client, {**_HEADERS}
            self._upload_id = await self._connection.document(
                "upload", lambda: str(client._create_multipart_upload(self._bucket, self._key, headers))
            )
        data = b"".join(held)
        held.clear()
        self._sending = asyncio.create_task(self._part(self._upload_id, len(self._sent) + 1, data))

    async def _part(self, upload_id: str, number: int, data: bytes) -> None:
        def call() -> str:
            self._count(data)
            return str(self._client._upload_part(self._bucket, self._key, data, None, upload_id, number))

        self._sent.append(Part(number, await self._connection.file("upload_part", call)))

    def _count(self, data: bytes) -> None:
        """Parts are sent one after the other, so this sees them in order. It runs in the thread that sends."""
        self._digest.update(data)
        self._size += len(data)

    async def _sent_so_far(self) -> None:
        if self._sending is not None:
            await asyncio.wait({self._sending})  # not awaited itself: it would end with whoever waits
            self._sending.result()

    async def _complete(self, upload_id: str) -> str:
        await self._sent_so_far()
        done = await self._connection.file(
            "upload", lambda: self._client._complete_multipart_upload(self._bucket, self._key, upload_id, self._sent)
        )
        return str(done.etag).strip('"')

    async def give_up(self) -> None:
        """Leave nothing behind. A part that is on its way would come after the end of its upload, and stay."""
        if self._sending is not None:
            await asyncio.wait({self._sending})
            look_at(self._sending)
        if (upload_id := self._upload_id) is not None:
            await self._connection.document(
                "abort", lambda: self._client._abort_multipart_upload(self._bucket, self._key, upload_id)
            )

    @property
    def _client(self) -> Any:
        return self._connection.client


_giving_up: set[asyncio.Task[None]] = set()
"""asyncio itself would forget them."""


async def write(connection: Connection, bucket: str, key: str, chunks: AsyncIterator[bytes]) -> Reference:
    """Write what `chunks` yields as one object. Nobody sees it before it is complete; if `chunks` raises, or the caller
    is cancelled, there is none, and no part stays in the store."""
    names.check(bucket, key)
    writing = _Writing(connection, bucket, key)
    try:
        return await writing.write(chunks)
    except BaseException:
        # nobody waits for it: the janitor aborts what cannot be aborted now
        task = asyncio.create_task(writing.give_up())
        _giving_up.add(task)
        task.add_done_callback(_giving_up.discard)
        task.add_done_callback(look_at)
        raise


def look_at(task: asyncio.Task[Any]) -> None:
    """Look at the exception of a task that nobody waits for, so that asyncio does not complain."""
    if not task.cancelled():
        task.exception()


async def read(connection: Connection, reference: Reference) -> AsyncIterator[bytes]:
    """The bytes of an object. The last of them come only when the digest of all is right, so nobody takes a damaged
    object for a whole one. While the reader works on a piece, the next one is read.

    Raises:
        CorruptObject: the object is gone, or is not what the reference names.
        StoreUnavailable: the store was away for longer than a restart takes.
    """
    names.check(reference.bucket, reference.key)
    digest = hashlib.sha256()
    place = names.shown(reference.bucket, reference.key)
    wrong = f"{place} does not match its reference (sha256 {reference.sha256[:12]}…): it was overwritten or damaged"

    def call(start: int) -> bytes:
        length = min(RANGE, reference.size - start)
        try:
            with verified.opened(connection.client, reference.bucket, reference.key, (start, length)) as response:
                data = response.read(length + 1)
        except S3Error as error:
            if error.code in verified.ABSENT:
                raise CorruptObject(f"{place} is gone") from None
            if error.code == "InvalidRange":  # it is shorter
                raise CorruptObject(wrong) from None
            raise
        if len(data) != length:
            raise CorruptObject(wrong)
        return bytes(data)

    async def piece(start: int) -> bytes:
        # a large object takes longer than a store is restarted
        return await retry(
            lambda: connection.file("read", lambda: call(start)), on=StoreUnavailable, pauses=islice(PAUSES, RETRIES)
        )

    coming = asyncio.create_task(piece(0)) if reference.size else None
    try:
        for start in range(0, reference.size, RANGE):
            assert coming is not None
            data = await coming
            following = start + RANGE
            if following < reference.size:
                coming = asyncio.create_task(piece(following))
            # not in the thread of the call: one that was given up may still be running
            await connection.beside(partial(digest.update, data))
            if following >= reference.size and digest.hexdigest() != reference.sha256:
                raise CorruptObject(wrong)
            yield data
            del data
    finally:
        if coming is not None:
            coming.add_done_callback(look_at)
            coming.cancel()
