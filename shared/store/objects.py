"""The object store through the `minio` client: create-once, compare-and-swap, multipart uploads, verified reads.

The client is synchronous, so every call runs in a thread. Writes go to one bucket; a reference names its own bucket.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TypeVar
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError

from shared import tls
from shared.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    CorruptObject,
    StoreUnavailable,
)
from shared.events import DatasetPointer, FolderReference, Reference
from shared.settings import StoreSettings
from shared.stages.ledger import JOBS, Entry
from shared.store import verified
from shared.store.errors import reason, translate, wants_tls
from shared.store.folders import folder_reference, manifest_key
from shared.store.verified import ABSENT
from shared.telemetry import metrics

log = logging.getLogger(__name__)
T = TypeVar("T")

PART_SIZE = 16 * 2**20  # up to this size one request, beyond it parts; S3 allows 10,000 parts: 160 GB

_LOST = {"PreconditionFailed", "ConditionalRequestConflict"}


class ObjectStore:
    """Writes to one bucket and reads from any. Every method raises `StoreUnavailable` or `ConfigError` when the store
    fails; the methods of `Ledger` are documented there."""

    def __init__(self, client: Minio, bucket: str, settings: StoreSettings) -> None:
        self._client = client
        self._settings = settings
        self.bucket = bucket

    @classmethod
    def connect(cls, settings: StoreSettings, bucket: str | None = None) -> ObjectStore:
        """A store that writes to `bucket`, by default the system's. Nothing is sent before the first call.

        Raises:
            ConfigError: the endpoint is not a URL, or the CA file holds no certificate.
        """
        address = urlsplit(settings.endpoint)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ConfigError(
                f"TUNESTREAM_STORE__ENDPOINT is {settings.endpoint!r}; give a URL such as http://127.0.0.1:9000"
            )
        client = Minio(
            address.netloc,
            access_key=settings.access_key,
            secret_key=settings.secret_key.get_secret_value(),
            secure=address.scheme == "https",
            # without a region the first call asks for the bucket's location, which a least-privilege user may not do
            region=settings.region,
            http_client=urllib3.PoolManager(
                maxsize=32,
                timeout=urllib3.Timeout(connect=5, read=60),
                # other=0: a refused certificate would be refused again
                retries=urllib3.Retry(total=3, other=0, backoff_factor=0.2, status_forcelist=(500, 502, 503, 504)),
                ssl_context=tls.client_context("STORE", settings.ca_file) if address.scheme == "https" else None,
            ),
        )
        return cls(client, bucket or settings.system_bucket, settings)

    def at(self, bucket: str) -> ObjectStore:
        """The same store, writing to `bucket`."""
        return ObjectStore(self._client, bucket, self._settings)

    def now(self) -> float:
        return time.time()

    def for_leases(self) -> ObjectStore:
        """The same bucket through connections and threads of its own, so that no other call delays a renewal."""
        return self

    async def check(self) -> None:
        """Check that these settings lead to the bucket, by listing `jobs/`.

        That needs a permission that every service has: `s3:ListBucket` on the bucket, with the prefix `jobs/`.

        Raises:
            ConfigError: they do not. The message names the setting, in one line.
            StoreUnavailable: the store is down.
        """

        def one_page() -> None:
            next(iter(self._client.list_objects(self.bucket, prefix=JOBS)), None)

        try:
            await self._in_thread("check", one_page)
        except StoreUnavailable:
            if line := await asyncio.to_thread(wants_tls, self._settings):
                raise ConfigError(line) from None
            raise

    # --- small documents --------------------------------------------------------------------------------------

    async def get(self, key: str) -> tuple[bytes, str] | None:
        def call() -> tuple[bytes, str] | None:
            try:
                with verified.opened(self._client, self.bucket, key) as response:
                    return response.read(), verified.etag_of(response)
            except S3Error as error:
                if error.code in ABSENT:
                    return None
                raise

        return await self._in_thread("get", call)

    async def create(self, key: str, data: bytes) -> str:
        try:
            return await self._write(key, data, {"If-None-Match": "*"})
        except Conflict:
            if etag := await self._already_mine(key, data):
                return etag
            raise AlreadyExists(key) from None

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        try:
            return await self._write(key, data, {"If-Match": f'"{etag}"'})
        except Conflict:
            if mine := await self._already_mine(key, data):
                return mine
            raise

    async def put(self, key: str, data: bytes) -> Reference:
        """Write an object, whether or not there is one already."""
        etag = await self._write(key, data, {})
        return Reference(
            bucket=self.bucket, key=key, etag=etag, size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        await self._in_thread("delete", lambda: self._client.remove_object(self.bucket, key))

    async def list(self, prefix: str) -> Sequence[Entry]:
        def call() -> Sequence[Entry]:
            found = self._client.list_objects(self.bucket, prefix=prefix, recursive=True)
            return [_entry(item) for item in found if not item.is_dir]

        return await self._in_thread("list", call)

    async def folders(self, prefix: str) -> Sequence[str]:
        def call() -> Sequence[str]:
            found = self._client.list_objects(self.bucket, prefix=prefix, recursive=False)
            return [(item.object_name or "").rstrip("/").rsplit("/", 1)[-1] for item in found if item.is_dir]

        return await self._in_thread("folders", call)

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Entry | None:
        """One object as `list` shows it; None if there is no such object or bucket."""

        def call() -> Entry | None:
            try:
                return _entry(self._client.stat_object(self.bucket, key))
            except S3Error as error:
                if error.code in ABSENT | {"NoSuchBucket"}:
                    return None
                raise

        return await self._in_thread("stat", call)

    async def metadata(self, key: str) -> dict[str, str]:
        """The user metadata of an object, by lower-case names without `x-amz-meta-`; empty if there is no object."""

        def call() -> dict[str, str]:
            try:
                stat = self._client.stat_object(self.bucket, key)
            except S3Error as error:
                if error.code in ABSENT:
                    return {}
                raise
            prefix = "x-amz-meta-"
            return {
                name.lower().removeprefix(prefix): value
                for name, value in (stat.metadata or {}).items()
                if name.lower().startswith(prefix)
            }

        return await self._in_thread("metadata", call)

    # --- files ------------------------------------------------------------------------------------------------

    async def upload(self, key: str, path: Path) -> Reference:
        """Write a file as an object."""

        def call() -> Reference:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            size = path.stat().st_size
            if size <= PART_SIZE:
                result = self._client._put_object(self.bucket, key, path.read_bytes(), headers={**_BINARY})
            else:
                result = self._client.fput_object(self.bucket, key, str(path), part_size=PART_SIZE)
            return Reference(bucket=self.bucket, key=key, etag=result.etag or "", size=size, sha256=digest)

        return await self._in_thread("upload", call)

    async def read(self, reference: Reference) -> bytes:
        """The bytes of an object.

        Raises:
            CorruptObject: the object is gone or was changed.
        """
        buffer = io.BytesIO()
        await self._in_thread("read", lambda: self._copy(reference, buffer))
        return buffer.getvalue()

    async def download(self, reference: Reference, path: Path) -> None:
        """Stream to `path`, which appears only when it is complete and its digest is right.

        Raises:
            CorruptObject: the object is gone or was changed.
        """

        def call() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".part-", delete=False) as file:
                try:
                    self._copy(reference, file)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            Path(file.name).replace(path)

        await self._in_thread("download", call)

    async def describe(self, pointer: DatasetPointer) -> Reference:
        """Turn a pointer into a reference by reading the object once.

        Raises:
            InputError: there is no such object, or it is not the one that the pointer describes.
        """
        return await self._in_thread("describe", lambda: verified.describe(self._client, pointer))

    # --- folders ----------------------------------------------------------------------------------------------

    async def upload_folder(self, prefix: str, path: Path) -> FolderReference:
        """Upload every file below `path`. The manifest is written last, so a folder with a manifest is complete."""
        prefix = prefix.rstrip("/") + "/"
        files: dict[str, Reference] = {}
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            name = file.relative_to(path).as_posix()
            files[name] = await self.upload(prefix + name, file)
        manifest = json.dumps({"files": {name: ref.model_dump() for name, ref in files.items()}}, indent=1).encode()
        written = await self.put(manifest_key(prefix), manifest)
        return folder_reference(self.bucket, prefix, manifest, written.etag)

    async def download_folder(self, folder: FolderReference, path: Path) -> None:
        """Download into `path`, which appears only when all of it is complete and right. An existing `path` is kept.

        Raises:
            CorruptObject: an object is gone or was changed, or the manifest names a file outside of `path`.
        """
        if path.exists():
            return
        manifest = json.loads(await self.read(folder.manifest))
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-"))
        try:
            for name, entry in manifest["files"].items():
                target = partial / name
                if not target.resolve().is_relative_to(partial.resolve()):
                    raise CorruptObject(f"{folder.prefix}manifest.json names a file outside its folder: {name}")
                await self.download(Reference.model_validate(entry), target)
            try:
                partial.rename(path)
            except OSError:
                if not path.exists():  # if it exists, another download of the same bytes was faster
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    # --- the wire ---------------------------------------------------------------------------------------------

    async def _in_thread(self, operation: str, call: Callable[[], T]) -> T:
        try:
            with metrics.store_seconds.labels(operation).time():
                return await asyncio.to_thread(call)
        except (S3Error, ServerError, InvalidResponseError, HTTPError, ConnectionError, TimeoutError) as error:
            metrics.store_errors.labels(operation).inc()
            log.warning("the object store failed", extra={"operation": operation, "reason": reason(error)})
            raise translate(error, self._settings) from None  # the messages of these exceptions name object keys

    async def _write(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        def call() -> str:
            try:
                # the client's public put_object takes no condition
                result = self._client._put_object(self.bucket, key, data, headers={**_BINARY, **condition})
            except S3Error as error:
                if condition and (error.code in _LOST or (error.code in ABSENT and "If-Match" in condition)):
                    raise Conflict(key) from None
                raise
            return result.etag or ""

        return await self._in_thread("write", call)

    async def _already_mine(self, key: str, data: bytes) -> str | None:
        """The ETag if the object has these bytes, else None. The client repeats a write whose reply was lost; the
        repetition fails, although the write took effect."""
        found = await self.get(key)
        return found[1] if found and found[0] == data else None

    def _copy(self, reference: Reference, sink: IO[bytes]) -> None:
        verified.copy(self._client, reference, sink)


# read-only: over TLS the client adds the digest of a request to the mapping that it was given
_BINARY: Mapping[str, str] = MappingProxyType({"Content-Type": "application/octet-stream"})


def _entry(item: Object) -> Entry:
    return Entry(
        item.object_name or "",
        (item.etag or "").strip('"'),
        item.size or 0,
        item.last_modified.timestamp() if item.last_modified else 0.0,
    )
