"""The object store, the bus and the clock in memory, for tests of everything that stands on them.

`FakeObjects` has every public method of `shared.objects.ObjectStore`, with its ETags, conditions and errors;
`FakeBus` records what is published and hands it, on request, to whoever subscribed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from shared.bus import Bus, Delivery
from shared.errors import AlreadyExists, Conflict, CorruptObject, InputError, StoreUnavailable, TransientError
from shared.events import DatasetPointer, Event, FolderReference, Reference
from shared.ledger import Entry
from shared.objects import ObjectStore


@dataclass
class Clock:
    """A time that tests set, in seconds since the epoch."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Held:
    """One object as it lies in a bucket."""

    data: bytes
    modified: float
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


class FakeObjects:
    """One bucket to write to, any bucket to read from. While `available` is False everything is `StoreUnavailable`."""

    def __init__(self, bucket: str = "tunestream", clock: Callable[[], float] = time.time) -> None:
        self.bucket = bucket
        self.buckets: dict[str, dict[str, Held]] = {bucket: {}, "datasets": {}}
        self.available = True
        self.calls: list[tuple[str, str]] = []
        """Name and key of every call, in order."""
        self._clock = clock
        self._root = self

    def at(self, bucket: str) -> FakeObjects:
        """The same store, writing to another bucket."""
        other = FakeObjects(bucket, self._clock)
        other.buckets, other.calls, other._root = self.buckets, self.calls, self._root
        self.buckets.setdefault(bucket, {})
        return other

    def as_store(self) -> ObjectStore:
        """Itself, under the type that the services name."""
        return cast(ObjectStore, self)

    async def check(self) -> None:
        self._called("check", "jobs/")

    @property
    def held(self) -> dict[str, Held]:
        """What the own bucket holds."""
        return self.buckets[self.bucket]

    # --- small documents --------------------------------------------------------------------------------------

    async def get(self, key: str) -> tuple[bytes, str] | None:
        self._called("get", key)
        held = self.held.get(key)
        return (held.data, held.etag) if held else None

    async def create(self, key: str, data: bytes) -> str:
        self._called("create", key)
        if (held := self.held.get(key)) and held.data != data:
            raise AlreadyExists(key)
        return held.etag if held else self._write(key, data)

    async def replace(self, key: str, data: bytes, etag: str) -> str:
        self._called("replace", key)
        held = self.held.get(key)
        if held is None or (held.etag != etag and held.data != data):
            raise Conflict(key)
        return self._write(key, data)

    async def put(self, key: str, data: bytes) -> Reference:
        self._called("put", key)
        return self._reference(key, self._write(key, data), data)

    async def delete(self, key: str) -> None:
        self._called("delete", key)
        self.held.pop(key, None)

    async def list(self, prefix: str) -> Sequence[Entry]:
        self._called("list", prefix)
        return [
            Entry(key, held.etag, len(held.data), held.modified)
            for key, held in sorted(self.held.items())
            if key.startswith(prefix)
        ]

    async def folders(self, prefix: str) -> Sequence[str]:
        self._called("folders", prefix)
        start = prefix.rfind("/") + 1
        found = {key[start:].split("/", 1)[0] for key in self.held if key.startswith(prefix) and "/" in key[start:]}
        return sorted(found)

    async def exists(self, key: str) -> bool:
        self._called("exists", key)
        return key in self.held

    async def stat(self, key: str) -> Entry | None:
        self._called("stat", key)
        held = self.held.get(key)
        return Entry(key, held.etag, len(held.data), held.modified) if held else None

    async def metadata(self, key: str) -> dict[str, str]:
        self._called("metadata", key)
        held = self.held.get(key)
        return dict(held.metadata) if held else {}

    def set_metadata(self, key: str, metadata: dict[str, str]) -> None:
        """What a test says was uploaded beside the bytes."""
        self.held[key].metadata = metadata

    # --- files and folders ------------------------------------------------------------------------------------

    async def upload(self, key: str, path: Path) -> Reference:
        return await self.put(key, path.read_bytes())

    async def read(self, reference: Reference) -> bytes:
        self._called("read", reference.key)
        held = self.buckets.get(reference.bucket, {}).get(reference.key)
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
        self._called("describe", pointer.key)
        where = f"{pointer.bucket}/{pointer.key}"
        held = self.buckets.get(pointer.bucket, {}).get(pointer.key)
        if held is None:
            raise InputError("file_not_found", f"There is no object {where}; upload it first.", "training_file")
        found = self.at(pointer.bucket)._reference(pointer.key, held.etag, held.data)
        for name in ("etag", "size", "sha256"):
            wanted = getattr(pointer, name)
            wanted = wanted.strip('"') if isinstance(wanted, str) else wanted
            if wanted is not None and wanted != getattr(found, name):
                raise InputError("file_changed", f"{where} has another {name}.", f"dataset.{name}")
        return found

    async def upload_folder(self, prefix: str, path: Path) -> FolderReference:
        prefix = prefix.rstrip("/") + "/"
        files: dict[str, Any] = {}
        for file in sorted(item for item in path.rglob("*") if item.is_file()):
            name = file.relative_to(path).as_posix()
            files[name] = (await self.upload(prefix + name, file)).model_dump()
        manifest = await self.put(f"{prefix}manifest.json", json.dumps({"files": files}).encode())
        return FolderReference(bucket=self.bucket, prefix=prefix, manifest=manifest)

    async def download_folder(self, folder: FolderReference, path: Path) -> None:
        if path.exists():
            return
        manifest = json.loads(await self.read(folder.manifest))
        files = {name: await self.read(Reference.model_validate(entry)) for name, entry in manifest["files"].items()}
        for name, data in files.items():
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

    # --- inside -----------------------------------------------------------------------------------------------

    def _called(self, name: str, key: str) -> None:
        self.calls.append((name, key))
        if not self._root.available:
            raise StoreUnavailable("the object store does not answer: a test said so")

    def _write(self, key: str, data: bytes) -> str:
        self.held[key] = Held(data, self._clock())
        return self.held[key].etag

    def _reference(self, key: str, etag: str, data: bytes) -> Reference:
        sha256 = hashlib.sha256(data).hexdigest()
        return Reference(bucket=self.bucket, key=key, etag=etag, size=len(data), sha256=sha256)


@dataclass(frozen=True)
class Published:
    """One call of `publish`."""

    event: Event
    ce_id: str
    subject: str | None
    traceparent: str | None


Handler = Callable[[Any, Delivery], Awaitable[None]]


class FakeBus:
    """Records what is published. While `available` is False nothing can be."""

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.subscribed: list[tuple[type[Event], Handler, str | None]] = []
        self.available = True

    def as_bus(self) -> Bus:
        """Itself, under the type that the services name."""
        return cast(Bus, self)

    async def publish(
        self, event: Event, *, ce_id: str, subject: str | None = None, traceparent: str | None = None
    ) -> None:
        if not self.available:
            raise TransientError("the bus does not take events: a test said so")
        self.published.append(Published(event, ce_id, subject, traceparent))

    def subscribe(self, event_type: type[Event], handler: Handler, *, group: str | None = None) -> None:
        self.subscribed.append((event_type, handler, group))

    async def deliver(self, event: Event, delivery: Delivery) -> None:
        """Hand an event to every handler of its topic."""
        for event_type, handler, _ in self.subscribed:
            if event_type is type(event):
                await handler(event, delivery)

    def events(self, kind: type[Event] = Event) -> list[Event]:
        """The published events of a kind."""
        return [published.event for published in self.published if isinstance(published.event, kind)]
