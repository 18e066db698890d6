"""The object store through the `minio` client: create-once, compare-and-swap, uploads, verified reads.

Writes go to one bucket; a reference names its own bucket. Every call ends within a bounded time, see `connection`.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from minio import Minio
from minio.error import S3Error

from shared.errors import (
    AlreadyExists,
    ConfigError,
    Conflict,
    CorruptObject,
    StoreRefused,
    StoreUnavailable,
)
from shared.events import DatasetPointer, FolderReference, Reference
from shared.settings import StoreSettings
from shared.stages.ledger import JOBS, Entry
from shared.store import listing, names, parts, streams, verified
from shared.store.clock import StoreClock
from shared.store.connection import Connection
from shared.store.errors import wants_tls
from shared.store.folders import folder_reference, manifest_key
from shared.store.listing import entry_of
from shared.store.verified import ABSENT

_LOST = {"PreconditionFailed", "ConditionalRequestConflict"}


class ObjectStore:
    """Writes to one bucket and reads from any. Every method raises `StoreUnavailable`, `ConfigError` or `StoreRefused`
    when the store fails; the methods of `Ledger` are documented there."""

    def __init__(self, connection: Connection, bucket: str) -> None:
        self._connection = connection
        self.bucket = bucket

    @classmethod
    def connect(
        cls, settings: StoreSettings, bucket: str | None = None, clock: StoreClock | None = None
    ) -> ObjectStore:
        """A store that writes to `bucket`, by default the system's. Nothing is sent before the first call.

        Raises:
            ConfigError: the endpoint is not a URL, or the CA file holds no certificate.
        """
        return cls(Connection(settings, clock or StoreClock()), bucket or settings.system_bucket)

    @property
    def _client(self) -> Minio:
        return self._connection.client

    def at(self, bucket: str) -> ObjectStore:
        """The same store, writing to `bucket`."""
        return ObjectStore(self._connection, bucket)

    def for_leases(self) -> ObjectStore:
        """The same bucket through connections and threads of its own, with short time limits, so that no other call
        delays a renewal."""
        return ObjectStore(self._connection.leases, self.bucket)

    def now(self) -> float:
        """Seconds since the epoch by the store's own clock; before its first answer, by this machine's."""
        return self._connection.clock.now()

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
            names.check_prefix(self.bucket, JOBS)
            await self._connection.document("check", one_page)
        except StoreRefused as error:
            raise ConfigError(f"{self.bucket!r} (TUNESTREAM_STORE__*_BUCKET) cannot be used: {error}") from None
        except (StoreUnavailable, ConfigError):  # a TLS server answers plain text with 400, or with nothing
            if line := await self._connection.beside(lambda: wants_tls(self._connection.settings)):
                raise ConfigError(line) from None
            raise

    # --- small documents --------------------------------------------------------------------------------------

    async def get(self, key: str) -> tuple[bytes, str] | None:
        self._check(key)

        def call() -> tuple[bytes, str] | None:
            try:
                with verified.opened(self._client, self.bucket, key) as response:
                    return response.read(), verified.etag_of(response)
            except S3Error as error:
                if error.code in ABSENT:
                    return None
                raise

        return await self._connection.document("get", call)

    async def create(self, key: str, data: bytes) -> str:
        try:
            return await self._write(key, data, {"If-None-Match": "*"})
        except Conflict:
            found = await self.get(key)
        if found is None:
            raise StoreUnavailable(_UNDER_WAY)
        if found[0] != data:
            raise AlreadyExists(key)
        return found[1]

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        try:
            return await self._write(key, data, {"If-Match": f'"{etag}"'})
        except Conflict:
            found = await self.get(key)
        if found is not None and found[0] == data:
            return found[1]  # by our own first try: the client repeats a write whose reply was lost
        if found is not None and found[1] == etag:
            raise StoreUnavailable(_UNDER_WAY)
        raise Conflict(key)

    async def put(self, key: str, data: bytes) -> Reference:
        """Write an object, whether or not there is one already."""
        etag = await self._write(key, data, {})
        return Reference(
            bucket=self.bucket, key=key, etag=etag, size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )

    async def delete(self, key: str) -> None:
        """Delete an object; a missing one is no error."""
        self._check(key)
        await self._connection.document("delete", lambda: self._client.remove_object(self.bucket, key))

    async def list(self, prefix: str) -> Sequence[Entry]:
        names.check_prefix(self.bucket, prefix)

        def call() -> Sequence[Entry]:
            found = self._client.list_objects(self.bucket, prefix=prefix, recursive=True)
            return [entry_of(item) for item in found if not item.is_dir]

        return await self._connection.document("list", call)

    async def page(self, prefix: str, after: str = "") -> Sequence[Entry]:
        """The objects whose key starts with `prefix`, in order, from behind the key `after` on: one request, so up to a
        thousand. Empty: there are no more."""
        names.check_prefix(self.bucket, prefix)
        return await self._connection.document("page", lambda: listing.page(self._client, self.bucket, prefix, after))

    async def walk(self, prefix: str) -> AsyncIterator[Entry]:
        """Every object whose key starts with `prefix`, in order, with one page of them in memory."""
        after = ""
        while page := await self.page(prefix, after):
            after = page[-1].key
            for entry in page:
                yield entry

    async def abort_uploads(self, before: float) -> int:
        """Abort some uploads in parts that were begun before `before` and never completed. Returns how many."""
        return await self._connection.document(
            "abort", lambda: listing.abort_uploads(self._client, self.bucket, before)
        )

    async def folders(self, prefix: str) -> Sequence[str]:
        names.check_prefix(self.bucket, prefix)

        def call() -> Sequence[str]:
            found = self._client.list_objects(self.bucket, prefix=prefix, recursive=False)
            return [(item.object_name or "").rstrip("/").rsplit("/", 1)[-1] for item in found if item.is_dir]

        return await self._connection.document("folders", call)

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Entry | None:
        """One object as `list` shows it; None if there is no such object or bucket."""
        self._check(key)

        def call() -> Entry | None:
            try:
                return entry_of(self._client.stat_object(self.bucket, key))
            except S3Error as error:
                if error.code in ABSENT | {"NoSuchBucket"}:
                    return None
                raise

        return await self._connection.document("stat", call)

    async def metadata(self, key: str) -> dict[str, str]:
        """The user metadata of an object, by lower-case names without `x-amz-meta-`; empty if there is no object."""
        self._check(key)

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

        return await self._connection.document("metadata", call)

    # --- files ------------------------------------------------------------------------------------------------

    async def upload(self, key: str, path: Path) -> Reference:
        """Write a file as an object."""
        self._check(key)
        return await parts.upload(self._connection, self.bucket, key, path)

    async def write_stream(self, key: str, chunks: AsyncIterator[bytes]) -> Reference:
        """Write an object while its bytes come, in flat memory. If `chunks` raises, there is no object."""
        return await streams.write(self._connection, self.bucket, key, chunks)

    def stream(self, reference: Reference) -> AsyncIterator[bytes]:
        """The bytes of an object as they come, in flat memory; the last of them only when the digest of all is right.

        Raises (while it is read):
            CorruptObject: the object is gone or was changed.
        """
        return streams.read(self._connection, reference)

    async def read(self, reference: Reference) -> bytes:
        """The bytes of an object.

        Raises:
            CorruptObject: the object is gone or was changed.
        """
        buffer = io.BytesIO()
        await self._connection.file("read", lambda: verified.copy(self._client, reference, buffer))
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
                    verified.copy(self._client, reference, file)
                except BaseException:
                    Path(file.name).unlink(missing_ok=True)
                    raise
            Path(file.name).replace(path)

        await self._connection.file("download", call)

    async def describe(self, pointer: DatasetPointer) -> Reference:
        """Turn a pointer into a reference by reading the object once.

        Raises:
            InputError: there is no such object, it cannot be read, or it is not the one that the pointer describes.
        """
        try:
            return await self._connection.file("describe", lambda: verified.describe(self._client, pointer))
        except StoreRefused as error:
            raise verified.unreadable(pointer, error) from None

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

    # --- helpers ----------------------------------------------------------------------------------------------

    def _check(self, key: str) -> None:
        names.check(self.bucket, key)

    async def _write(self, key: str, data: bytes, condition: dict[str, str]) -> str:
        """Write a small object. Raises `Conflict` if the condition does not hold."""
        self._check(key)

        def call() -> str:
            try:
                # the client's public put_object takes no condition
                result = self._client._put_object(self.bucket, key, data, headers={**_BINARY, **condition})
            except S3Error as error:
                if condition and (error.code in _LOST or (error.code in ABSENT and "If-Match" in condition)):
                    raise Conflict(key) from None
                raise
            return result.etag or ""

        return await self._connection.document("write", call)


_UNDER_WAY = "the object store refused a write because of another one that was under way"

# read-only: over TLS the client adds the digest of a request to the mapping that it was given
_BINARY: Mapping[str, str] = MappingProxyType({"Content-Type": "application/octet-stream"})
