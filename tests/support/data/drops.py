"""Scenarios of what users do in the datasets bucket, and of the events that must follow. They run with any S3 server,
and with notifications or sweeps.

Each scenario takes a `Bucket` and the `Uploads`, uses keys of its own, and returns when the expected events have
arrived.
"""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from minio import Minio
from minio.commonconfig import CopySource

from shared.events import DatasetUploaded
from shared.kafka.bus import Bus, Delivery
from shared.settings import BusSettings
from tests.support.waiting import until

MIB = 2**20
ROWS = b'{"messages": []}\n' * 10
NAMES = ("two words.jsonl", "Zürich/数据.jsonl", "1+1=2.jsonl", "100%25 & more.jsonl", "a~(b)'c.jsonl")

Notify = Callable[[str, str], Awaitable[None]]
"""Sends the notification of a change for a server that sends none. Takes the name of the S3 event and the key."""


@dataclass
class Uploads:
    """Every `dataset.uploaded` that ingest published. Those of other programs, which name no job, are left out."""

    taken: list[DatasetUploaded] = field(default_factory=list)

    async def take(self, event: DatasetUploaded, delivery: Delivery) -> None:
        if event.job_id is not None:
            self.taken.append(event)

    def events(self, key: str) -> list[DatasetUploaded]:
        return [event for event in self.taken if event.dataset.key == key]

    def jobs(self, key: str) -> set[str | None]:
        return {event.job_id for event in self.events(key)}


@asynccontextmanager
async def listen_for_uploads(settings: BusSettings) -> AsyncIterator[Uploads]:
    uploads = Uploads()
    bus = Bus(settings, f"uploads-{uuid.uuid4().hex[:6]}")
    bus.subscribe(DatasetUploaded, uploads.take)
    await bus.start()
    try:
        yield uploads
    finally:
        await bus.stop()


async def no_notification(event: str, key: str) -> None:
    """Send no notification: the server sends them itself."""


@dataclass
class Bucket:
    """The bucket as its users see it."""

    client: Minio
    name: str = "datasets"
    notify: Notify = no_notification

    async def put(self, key: str, data: bytes = ROWS) -> None:
        await asyncio.to_thread(self.client.put_object, self.name, key, io.BytesIO(data), len(data))
        await self.notify("s3:ObjectCreated:Put", key)

    async def put_parts(self, key: str, data: bytes) -> None:
        """Upload in parts of 5 MiB, the smallest that S3 accepts."""
        put = self.client.put_object
        await asyncio.to_thread(put, self.name, key, io.BytesIO(data), len(data), part_size=5 * MIB)
        await self.notify("s3:ObjectCreated:CompleteMultipartUpload", key)

    async def copy(self, source: str, key: str) -> None:
        await asyncio.to_thread(self.client.copy_object, self.name, key, CopySource(self.name, source))
        await self.notify("s3:ObjectCreated:Copy", key)


async def every_name_arrives(bucket: Bucket, uploads: Uploads) -> None:
    folder = _folder()
    for name in NAMES:
        await bucket.put(folder + name)
    for name in NAMES:
        await until(lambda name=name: bool(uploads.jobs(folder + name)), f"{name} becomes a job")


async def a_multipart_upload_is_one_job(bucket: Bucket, uploads: Uploads) -> None:
    key = _folder() + "parts.jsonl"
    data = ROWS * (12 * MIB // len(ROWS))
    await bucket.put_parts(key, data)
    await until(lambda: bool(uploads.jobs(key)), "the upload becomes a job")
    (event,) = uploads.events(key)
    assert event.dataset.size == len(data)


async def other_bytes_are_another_job_and_the_same_are_none(bucket: Bucket, uploads: Uploads) -> None:
    key = _folder() + "again.jsonl"
    await bucket.put(key)
    await until(lambda: len(uploads.events(key)) == 1, "the drop becomes a job")
    await bucket.put(key)
    await _caught_up(bucket, uploads)
    assert len(uploads.events(key)) == 1
    await bucket.put(key, ROWS * 2)
    await until(lambda: len(uploads.jobs(key)) == 2, "other bytes become another job")


async def a_copy_is_a_job_of_its_own(bucket: Bucket, uploads: Uploads) -> None:
    folder = _folder()
    await bucket.put(folder + "source.jsonl")
    await bucket.copy(folder + "source.jsonl", folder + "the copy.jsonl")
    await until(lambda: bool(uploads.jobs(folder + "the copy.jsonl")), "the copy becomes a job")
    await until(lambda: bool(uploads.jobs(folder + "source.jsonl")), "the source becomes a job")
    assert uploads.jobs(folder + "source.jsonl").isdisjoint(uploads.jobs(folder + "the copy.jsonl"))


async def what_is_no_dataset_is_left_alone(bucket: Bucket, uploads: Uploads) -> None:
    folder = _folder()
    names = ("a.job.yaml", "a.jsonl.part", "notes.txt", "_kept/a.jsonl")
    for name in names:
        await bucket.put(folder + name, b"{}")
    await _caught_up(bucket, uploads)
    assert not any(uploads.events(folder + name) for name in names)


SCENARIOS = (
    every_name_arrives,
    a_multipart_upload_is_one_job,
    other_bytes_are_another_job_and_the_same_are_none,
    a_copy_is_a_job_of_its_own,
    what_is_no_dataset_is_left_alone,
)


async def _caught_up(bucket: Bucket, uploads: Uploads) -> None:
    """Drop another dataset and wait for its job: by then ingest has looked at all earlier drops."""
    key = _folder() + "marker.jsonl"
    await bucket.put(key)
    await until(lambda: bool(uploads.jobs(key)), "a later drop becomes a job")


def _folder() -> str:
    return f"{uuid.uuid4().hex[:8]}/"
