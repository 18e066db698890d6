"""Reads whole objects, and checks their bytes against a reference. The functions block, so the store calls them in a
thread."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import urllib3
from minio import Minio
from minio.error import S3Error

from shared.errors import CorruptObject, InputError, StoreRefused
from shared.events import DatasetPointer, Reference
from shared.store import names

CHUNK = 2**20

ABSENT = {"NoSuchKey", "NoSuchObject", "NoSuchVersion"}
"""The codes by which the store says that an object does not exist."""


@contextmanager
def opened(
    client: Minio, bucket: str, key: str, span: tuple[int, int] | tuple[()] = ()
) -> Iterator[urllib3.BaseHTTPResponse]:
    """The answer with the object's bytes, or with those of a `span` (start and length). Its connection goes back to the
    pool when the block is left."""
    names.check(bucket, key)
    response = client.get_object(bucket, key, *span)
    try:
        yield response
    finally:
        response.close()
        response.release_conn()


def etag_of(response: urllib3.BaseHTTPResponse) -> str:
    return response.headers.get("etag", "").strip('"')


def copy(client: Minio, reference: Reference, sink: IO[bytes]) -> None:
    """Write the bytes that `reference` names to `sink`.

    Raises:
        CorruptObject: the object is gone, or has another digest. `sink` may have some of its bytes then.
    """
    place = names.shown(reference.bucket, reference.key)
    digest = hashlib.sha256()
    try:
        with opened(client, reference.bucket, reference.key) as response:
            for chunk in response.stream(CHUNK):
                digest.update(chunk)
                sink.write(chunk)
    except S3Error as error:
        if error.code in ABSENT:
            raise CorruptObject(f"{place} is gone") from None
        raise
    if digest.hexdigest() != reference.sha256:
        raise CorruptObject(
            f"{place} does not match its reference (sha256 {reference.sha256[:12]}…): it was overwritten or damaged"
        )


def describe(client: Minio, pointer: DatasetPointer) -> Reference:
    """Turn a pointer into a reference by reading the object once.

    Raises:
        InputError: there is no such object, it may not be read, or it is not the one that the pointer describes.
        StoreRefused: no object can have this name.
    """
    place = names.shown(pointer.bucket, pointer.key)
    digest, size = hashlib.sha256(), 0
    try:
        with opened(client, pointer.bucket, pointer.key) as response:
            for chunk in response.stream(CHUNK):
                digest.update(chunk)
                size += len(chunk)
            etag = etag_of(response)
    except S3Error as error:
        if error.code in ABSENT | {"NoSuchBucket"}:
            raise InputError(
                "file_not_found", f"There is no object {place}; upload it first.", "training_file"
            ) from None
        # of a place that a user named this says nothing about our own settings
        if error.code == "AccessDenied":
            raise InputError(
                "file_not_readable",
                f"{place} may not be read here; put the file where Tunestream's access key may read it.",
                "training_file",
            ) from None
        raise
    for name, wanted, found in (
        ("etag", pointer.etag and pointer.etag.strip('"'), etag),
        ("size", pointer.size, size),
        ("sha256", pointer.sha256, digest.hexdigest()),
    ):
        if wanted is not None and wanted != found:
            raise InputError(
                "file_changed",
                f"{place} has {name} {found}, the event says {wanted}: it was overwritten; publish again.",
                f"dataset.{name}",
            )
    return Reference(bucket=pointer.bucket, key=pointer.key, etag=etag, size=size, sha256=digest.hexdigest())


def unreadable(pointer: DatasetPointer, error: StoreRefused) -> InputError:
    """What a user is told of a place that they named and that the store refuses to read."""
    place = names.shown(pointer.bucket, pointer.key)
    impossible = error.code in names.IMPOSSIBLE
    return InputError(
        "file_not_found" if impossible else "file_not_readable",
        f"{'There is no object' if impossible else 'The store does not give out'} {place}: {names.remedy(error.code)}.",
        "training_file",
    )
