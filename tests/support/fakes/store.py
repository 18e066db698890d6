"""The object store in memory: the one fake of `shared.store.objects.ObjectStore`.

`tests/contract/store_suite.py` runs the same tests against this fake and against a real S3 server.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import AlreadyExists, Conflict, CorruptObject, InputError, StoreRefused, StoreUnavailable
from shared.events import DatasetPointer, Reference
from shared.stages.ledger import Entry
from shared.store import names, verified
from shared.store.listing import PAGE
from shared.store.objects import ObjectStore


@dataclass
class StoredObject:
    """One object in a bucket. `modified` is in seconds since the epoch; metadata names are lower-case."""

    data: bytes
    modified: float
    metadata: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.etag = hashlib.md5(self.data, usedforsecurity=False).hexdigest()

    def entry(self, key: str) -> Entry:
        return Entry(key, self.etag, len(self.data), self.modified)


@dataclass
class Disk:
    """What all clients of one fake store share."""

    buckets: dict[str, dict[str, StoredObject]] = field(default_factory=lambda: defaultdict(dict))
    """Key to object, by the name of the bucket."""
    calls: list[tuple[str, str]] = field(default_factory=list)
    """Name and key of every call, in order."""
    uploads: dict[str, float] = field(default_factory=dict)
    """When each upload in parts was begun that is not completed, by its name."""
    available: bool = True
    """While this is False every call raises `StoreUnavailable`."""


class FakeStore(ObjectStore):
    """One client of a store in memory: writes to one bucket, reads from any.

    Clients with the same `disk` are clients of the same store. A test that needs a slow or broken store overrides
    `before` or `after`, which are awaited around the effect of every call. The folder operations are the real code.
    """

    page_size = PAGE
    range_size = 2**16

    def __init__(
        self, bucket: str = "tunestream", clock: Callable[[], float] = time.time, disk: Disk | None = None
    ) -> None:
        self.bucket = bucket
        self.disk = disk or Disk()
        self._clock = clock

    def at(self, bucket: str) -> FakeStore:
        """The same store, writing to another bucket."""
        return FakeStore(bucket, self._clock, self.disk)

    # --- what a test sees and changes -------------------------------------------------------------------------

    @property
    def held(self) -> dict[str, StoredObject]:
        """The objects of this client's own bucket, by key."""
        return self.disk.buckets[self.bucket]

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and key of every call, in order."""
        return self.disk.calls

    @property
    def available(self) -> bool:
        return self.disk.available

    @available.setter
    def available(self, value: bool) -> None:
        self.disk.available = value

    def add(self, key: str, data: bytes, metadata: dict[str, str] | None = None) -> Reference:
        """Add an object without recording a call."""
        self.held[key] = StoredObject(data, self._clock(), metadata or {})
        return _reference(self.bucket, key, self.held[key])

    # --- hooks ------------------------------------------------------------------------------------------------

    async def before(self, operation: str, key: str) -> None:
        """Awaited before the effect of every call. An error raised here means that the call had no effect."""
        self.calls.append((operation, key))
        if not self.available:
            raise StoreUnavailable("the object store does not answer: a test said so")

    async def after(self, operation: str, key: str) -> None:
        """Awaited after the effect of every call. An error raised here is a lost reply: the effect stays."""

    def write(self, key: str, data: bytes) -> StoredObject:
        """Every write ends here."""
        held = self.held[key] = StoredObject(data, self._clock())
        return held

    # --- small documents --------------------------------------------------------------------------------------

    def now(self) -> float:
        return self._clock()

    def for_leases(self) -> FakeStore:
        """This client: in memory no call delays another."""
        return self

    async def check(self) -> None:
        await self.before("check", "jobs/")
        await self.after("check", "jobs/")

    async def get(self, key: str) -> tuple[bytes, str] | None:
        self._check(key)
        await self.before("get", key)
        held = self.held.get(key)
        await self.after("get", key)
        return (held.data, held.etag) if held else None

    async def create(self, key: str, data: bytes) -> str:
        self._check(key)
        await self.before("create", key)
        held = self.held.get(key) or self.write(key, data)
        await self.after("create", key)
        if held.data != data:
            raise AlreadyExists(key)
        return held.etag

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        self._check(key)
        await self.before("replace", key)
        held = self.held.get(key)
        if held and held.etag == etag:
            held = self.write(key, data)
        await self.after("replace", key)
        if held is None or held.data != data:
            raise Conflict(key)
        return held.etag

    async def put(self, key: str, data: bytes) -> Reference:
        self._check(key)
        await self.before("put", key)
        held = self.write(key, data)
        await self.after("put", key)
        return _reference(self.bucket, key, held)

    async def delete(self, key: str) -> None:
        self._check(key)
        await self.before("delete", key)
        self.held.pop(key, None)
        await self.after("delete", key)

    async def list(self, prefix: str) -> Sequence[Entry]:
        names.check_prefix(self.bucket, prefix)
        await self.before("list", prefix)
        found = [held.entry(key) for key, held in sorted(self.held.items()) if key.startswith(prefix)]
        await self.after("list", prefix)
        return found

    async def page(self, prefix: str, after: str = "") -> Sequence[Entry]:
        names.check_prefix(self.bucket, prefix)
        await self.before("page", prefix)
        behind = [key for key in sorted(self.held) if key.startswith(prefix) and key > after]
        found = [self.held[key].entry(key) for key in behind[: self.page_size]]
        await self.after("page", prefix)
        return found

    async def abort_uploads(self, before: float) -> int:
        await self.before("abort", "")
        old = [name for name, begun in self.disk.uploads.items() if begun < before]
        for name in old:
            del self.disk.uploads[name]
        await self.after("abort", "")
        return len(old)

    async def folders(self, prefix: str) -> Sequence[str]:
        names.check_prefix(self.bucket, prefix)
        await self.before("folders", prefix)
        start = prefix.rfind("/") + 1
        found = {key[start:].split("/", 1)[0] for key in self.held if key.startswith(prefix) and "/" in key[start:]}
        await self.after("folders", prefix)
        return sorted(found)

    async def exists(self, key: str) -> bool:
        return await self.stat(key) is not None

    async def stat(self, key: str) -> Entry | None:
        self._check(key)
        await self.before("stat", key)
        held = self.held.get(key)
        await self.after("stat", key)
        return held.entry(key) if held else None

    async def metadata(self, key: str) -> dict[str, str]:
        self._check(key)
        await self.before("metadata", key)
        held = self.held.get(key)
        await self.after("metadata", key)
        return dict(held.metadata) if held else {}

    # --- files ------------------------------------------------------------------------------------------------

    async def upload(self, key: str, path: Path) -> Reference:
        return await self.put(key, path.read_bytes())

    async def write_stream(self, key: str, chunks: AsyncIterator[bytes]) -> Reference:
        self._check(key)
        data = b"".join([chunk async for chunk in chunks])
        return await self.put(key, data)

    async def stream(self, reference: Reference) -> AsyncIterator[bytes]:
        data = await self.read(reference)
        for start in range(0, len(data), self.range_size):
            yield data[start : start + self.range_size]

    async def read(self, reference: Reference) -> bytes:
        names.check(reference.bucket, reference.key)
        await self.before("read", reference.key)
        held = self.disk.buckets.get(reference.bucket, {}).get(reference.key)
        await self.after("read", reference.key)
        if held is None:
            raise CorruptObject(f"{reference.bucket}/{reference.key} is gone")
        if hashlib.sha256(held.data).hexdigest() != reference.sha256:
            raise CorruptObject(f"{reference.bucket}/{reference.key} is not what was promised")
        return held.data

    async def download(self, reference: Reference, path: Path) -> None:
        data = await self.read(reference)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    async def describe(self, pointer: DatasetPointer) -> Reference:
        try:
            names.check(pointer.bucket, pointer.key)
        except StoreRefused as error:
            raise verified.unreadable(pointer, error) from None
        await self.before("describe", pointer.key)
        where = names.shown(pointer.bucket, pointer.key)
        held = self.disk.buckets.get(pointer.bucket, {}).get(pointer.key)
        await self.after("describe", pointer.key)
        if held is None:
            raise InputError("file_not_found", f"There is no object {where}; upload it first.", "training_file")
        found = _reference(pointer.bucket, pointer.key, held)
        for name in ("etag", "size", "sha256"):
            wanted = getattr(pointer, name)
            wanted = wanted.strip('"') if isinstance(wanted, str) else wanted
            if wanted is not None and wanted != getattr(found, name):
                raise InputError(
                    "file_changed",
                    f"{where} has {name} {getattr(found, name)}, the event says {wanted}: it was overwritten; "
                    "publish again.",
                    f"dataset.{name}",
                )
        return found


def _reference(bucket: str, key: str, held: StoredObject) -> Reference:
    sha256 = hashlib.sha256(held.data).hexdigest()
    return Reference(bucket=bucket, key=key, etag=held.etag, size=len(held.data), sha256=sha256)
