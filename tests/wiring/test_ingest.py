"""Ingest with the real store and broker: every dropped or announced dataset becomes exactly one job, however ingest
learns of it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

import boto3
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from botocore.config import Config

from services.ingest.app import build
from shared.drops import SEEN, drop_name
from shared.events import Job, JobFailed
from shared.http import health
from shared.kafka.bus import Bus, Delivery
from shared.service import Context
from shared.stages import quarantine
from shared.stages.ledger import job_key
from tests.support.data import drops
from tests.support.data.drops import ROWS, Bucket, Uploads, listen_for_uploads
from tests.support.embedded import Embedded
from tests.support.waiting import until

NEVER = 3600.0


@dataclass
class Ingest:
    """A running ingest, and the events that it published."""

    parts: Embedded
    bus: Bus
    uploads: Uploads
    bucket: Bucket
    failed: list[JobFailed] = field(default_factory=list)

    async def manifest(self, job_id: str | None) -> Job:
        found = await self.parts.objects.get(job_key(str(job_id)))
        assert found is not None
        return Job.model_validate_json(found[0])


@asynccontextmanager
async def ingest(parts: Embedded, *, topic: str | None = None, sweep_seconds: float = 0.2) -> AsyncIterator[Ingest]:
    """Run ingest. With `sweep_seconds=NEVER` it sweeps the bucket once, before anything is dropped."""
    updates = {"sweep_seconds": sweep_seconds, "settle_seconds": 0.1, "notifications_topic": topic}
    settings = parts.settings.model_copy(update={"ingest": parts.settings.ingest.model_copy(update=updates)})
    bus = Bus(settings.bus, f"ingest-{uuid.uuid4().hex[:6]}")
    failed: list[JobFailed] = []

    async def fail(event: JobFailed, delivery: Delivery) -> None:
        failed.append(event)

    bus.subscribe(JobFailed, fail)
    background = build(Context(settings, parts.objects, bus)).background
    async with listen_for_uploads(settings.bus) as uploads:
        tasks = [asyncio.ensure_future(task()) for task in background]
        await bus.start()
        try:
            yield Ingest(parts, bus, uploads, Bucket(parts.objects._client), failed)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await bus.stop()


@dataclass
class Notifications:
    """A topic for one test, on which it publishes the notifications that a store would send."""

    topic: str
    producer: AIOKafkaProducer

    async def notify(self, event: str, key: str) -> None:
        record = {"eventName": event, "s3": {"bucket": {"name": "datasets"}, "object": {"key": quote_plus(key)}}}
        await self.send(json.dumps({"EventName": event, "Key": f"datasets/{key}", "Records": [record]}).encode())

    async def send(self, value: bytes) -> None:
        await self.producer.send_and_wait(self.topic, value)


@asynccontextmanager
async def notifications(parts: Embedded, *, made: bool = True) -> AsyncIterator[Notifications]:
    producer = AIOKafkaProducer(bootstrap_servers=parts.stack.kafka)
    await producer.start()
    try:
        created = Notifications(f"bucket.notifications.{uuid.uuid4().hex[:6]}", producer)
        if made:
            await create_topic(parts, created.topic)
        yield created
    finally:
        await producer.stop()


async def create_topic(parts: Embedded, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=parts.stack.kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


@asynccontextmanager
async def notified(parts: Embedded) -> AsyncIterator[tuple[Ingest, Notifications]]:
    """An ingest that learns of a drop only by its notification: the bucket is swept once, before the first drop."""
    async with notifications(parts) as notifier, ingest(parts, topic=notifier.topic, sweep_seconds=NEVER) as running:
        running.bucket.notify = notifier.notify
        yield running, notifier


async def test_a_drop_becomes_one_job_with_its_sidecars_settings(parts: Embedded) -> None:
    async with ingest(parts) as running:
        await running.bucket.put("drop one/a b.job.yaml", b"suffix: helper\nhyperparameters: {n_epochs: 2}\n")
        await running.bucket.put("drop one/a b.jsonl")
        await until(lambda: bool(running.uploads.jobs("drop one/a b.jsonl")), "the drop becomes a job")
        (job_id,) = running.uploads.jobs("drop one/a b.jsonl")
        job = await running.manifest(job_id)
    assert (job.spec.suffix, job.spec.hyperparameters.n_epochs, job.alias) == ("helper", 2, "helper")
    assert job.dataset.size == len(ROWS) and job.origin.kind == "drop"


Scenario = Callable[[Bucket, Uploads], Awaitable[None]]


@pytest.mark.parametrize("scenario", drops.SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_scenario_with_sweeps_only(parts: Embedded, scenario: Scenario) -> None:
    async with ingest(parts) as running:
        await scenario(running.bucket, running.uploads)


@pytest.mark.parametrize("scenario", drops.SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_a_scenario_with_notifications_only(parts: Embedded, scenario: Scenario) -> None:
    async with notified(parts) as (running, _):
        await scenario(running.bucket, running.uploads)


async def test_a_drop_that_is_found_again_after_a_restart_is_still_one_job(parts: Embedded) -> None:
    async with ingest(parts) as running:
        await running.bucket.put("again.jsonl")
        await until(lambda: bool(running.uploads.jobs("again.jsonl")), "the drop becomes a job")
        first = running.uploads.jobs("again.jsonl")
    async with ingest(parts) as running:
        await drops.what_is_no_dataset_is_left_alone(running.bucket, running.uploads)
        assert running.uploads.jobs("again.jsonl") == first


async def test_notifications_that_lead_nowhere_do_not_stop_those_that_follow(parts: Embedded) -> None:
    async with notified(parts) as (running, notifier):
        await notifier.send(b"\xff not a notification")
        await notifier.send(b'{"Records": [{"eventName": 7}]}')
        await notifier.notify("s3:ObjectCreated:Put", "gone already.jsonl")
        await running.bucket.put("notified/there.jsonl")
        await until(lambda: bool(running.uploads.jobs("notified/there.jsonl")), "the drop behind them becomes a job")
        assert not running.uploads.jobs("gone already.jsonl")


async def test_a_drop_is_taken_once_whether_the_sweep_or_the_notification_comes_first(parts: Embedded) -> None:
    """The test counts events, not only jobs: whichever comes second does not even read the dataset again."""
    async with notifications(parts) as notifier:
        async with ingest(parts, topic=notifier.topic) as swept:
            await swept.bucket.put("both/swept.jsonl")
            await until(lambda: bool(swept.uploads.jobs("both/swept.jsonl")), "the sweep takes it")
            for _ in range(3):
                await notifier.notify("s3:ObjectCreated:Put", "both/swept.jsonl")
            swept.bucket.notify = notifier.notify
            await swept.bucket.put("both/at once.jsonl")
            await until(lambda: bool(swept.uploads.jobs("both/at once.jsonl")), "either takes it")
            await until(lambda: remembered(parts, "both/swept.jsonl", "both/at once.jsonl"), "both are remembered")
        async with ingest(parts, topic=notifier.topic, sweep_seconds=NEVER) as informed:
            await notifier.notify("s3:ObjectCreated:Put", "both/at once.jsonl")
            informed.bucket.notify = notifier.notify
            await informed.bucket.put("both/notified.jsonl")
            await until(lambda: bool(informed.uploads.jobs("both/notified.jsonl")), "the notification is enough")
            await until(lambda: remembered(parts, "both/notified.jsonl"), "it is remembered")
        async with ingest(parts) as later:
            await drops.what_is_no_dataset_is_left_alone(later.bucket, later.uploads)
            for key in ("both/swept.jsonl", "both/at once.jsonl", "both/notified.jsonl"):
                await until(lambda key=key: bool(later.uploads.events(key)), "the whole topic was read")
                assert len(later.uploads.events(key)) == 1


async def remembered(parts: Embedded, *keys: str) -> bool:
    """Whether a restart would not take these drops again. An event may be out a moment before that."""
    found = [await parts.objects.at("datasets").stat(key) for key in keys]
    names = [drop_name("datasets", entry, {}) for entry in found if entry is not None]
    return len(names) == len(keys) and all([await parts.objects.exists(SEEN + name) for name in names])


async def test_the_service_is_ready_without_the_topic_and_reads_it_once_there_is_one(parts: Embedded) -> None:
    async with notifications(parts, made=False) as notifier:
        await parts.objects.at("datasets").put("no topic/before.jsonl", ROWS)
        async with ingest(parts, topic=notifier.topic, sweep_seconds=NEVER) as running:
            await until(lambda: health.bus_check(running.bus)() is None, "the service is ready")
            await until(lambda: bool(running.uploads.jobs("no topic/before.jsonl")), "the sweep takes what is there")
            await create_topic(parts, notifier.topic)
            running.bucket.notify = notifier.notify
            await running.bucket.put("no topic/after.jsonl")
            await until(lambda: bool(running.uploads.jobs("no topic/after.jsonl")), "the notification is enough")


async def test_a_strangers_bare_event_takes_the_same_way(parts: Embedded) -> None:
    async with ingest(parts) as running:
        await parts.objects.at("datasets").put("_strangers/data.jsonl", ROWS)
        producer = AIOKafkaProducer(bootstrap_servers=parts.stack.kafka)
        await producer.start()
        bare = json.dumps({"dataset": {"bucket": "datasets", "key": "_strangers/data.jsonl"}}).encode()
        traceparent = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
        for _ in range(3):
            await producer.send_and_wait("dataset.uploaded", bare, headers=[("traceparent", traceparent.encode())])
        await producer.stop()
        await until(lambda: bool(running.uploads.jobs("_strangers/data.jsonl")), "the event becomes a job")
        (job_id,) = running.uploads.jobs("_strangers/data.jsonl")
        job = await running.manifest(job_id)
    assert job.traceparent == traceparent
    assert job.origin.kind == "event"


async def test_wrong_settings_end_the_job_with_the_name_of_the_field(parts: Embedded) -> None:
    async with ingest(parts) as running:
        await running.bucket.put("wrong.job.yaml", b"hyperparameters: {n_epochs: many}\n")
        await running.bucket.put("wrong.jsonl")
        await until(lambda: any(event.stage == "ingest" for event in running.failed), "the job fails")
    failure = next(event for event in running.failed if event.stage == "ingest")
    assert failure.code == "invalid_job_settings"
    assert "wrong.job.yaml" in failure.message and "n_epochs" in failure.message
    assert not running.uploads.jobs("wrong.jsonl")


SIDECARS = {
    "date": b"suffix: 2024-31-12\n",
    "infinite": b"hyperparameters: {max_grad_norm: .inf}\n",
    "digits": b"seed: " + b"9" * 5000,
    "deep": b"[" * 50_000,
    "laughs": b"a: &a [lol]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "large": b"x" * 2**20,
    "binary": bytes(range(256)),
    "no bucket": b"validation_file: {bucket: '!', key: a.jsonl}\n",
    "no key": b"validation_file: {bucket: datasets, key: ''}\n",
    "up": b"validation_file: {bucket: datasets, key: ../a.jsonl}\n",
    "long": b"validation_file: {bucket: datasets, key: " + b"k" * 1025 + b"}\n",
    "absent": b"validation_file: {bucket: no-such-bucket, key: a.jsonl}\n",
}
KEYS = (
    *("a//b.jsonl", "/a.jsonl", "c\x01.jsonl", "d\x7f.jsonl", "e\n.jsonl", "😀.jsonl", "a\u0301.jsonl", "%2e.jsonl"),
    *("b\\s.jsonl", "n" * 249 + ".jsonl", ("p" * 200 + "/") * 5 + "q.jsonl"),
)


def raw(parts: Embedded) -> Any:
    """A client that sends any key, as a stranger's may."""
    store = parts.settings.store
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=store.access_key,
        aws_secret_access_key=store.secret_key.get_secret_value(),
        region_name=store.region,
        config=Config(s3={"addressing_style": "path"}),
    )


async def test_nothing_that_is_dropped_or_announced_stops_the_others(own_parts: Embedded) -> None:
    """Everything that ended ingest, at every restart, and a good dataset behind it."""
    client, folder = raw(own_parts), "hostile"
    for name, text in SIDECARS.items():
        client.put_object(Bucket="datasets", Key=f"{folder}/{name}.job.yaml", Body=text)
        client.put_object(Bucket="datasets", Key=f"{folder}/{name}.jsonl", Body=ROWS)
    for key in KEYS:
        client.put_object(Bucket="datasets", Key=f"odd/{key}", Body=ROWS)
    for number, stored in enumerate((b"null", b"\xff", b'{"event": {"spec": {"gate": {"min_delta": null}}}}')):
        client.put_object(Bucket="tunestream", Key=f"ingest/inbox/{number}", Body=stored)
    producer = AIOKafkaProducer(bootstrap_servers=own_parts.stack.kafka)
    await producer.start()
    for value in (
        b'{"dataset": {"bucket": "!", "key": "a.jsonl"}}',
        b'{"dataset": {"bucket": "datasets", "key": ""}}',
        b'{"dataset": {"bucket": "datasets", "key": "../a.jsonl"}}',
        b'{"dataset": {"bucket": "datasets", "key": "hostile/date.jsonl"}, "spec": {"gate": {"min_delta": Infinity}}}',
        b'{"dataset": {"bucket": "datasets", "key": "hostile/date.jsonl"}, "spec": {"gate": {"min_delta": 1e999}}}',
    ):
        await producer.send_and_wait("dataset.uploaded", value)
    await producer.stop()

    for restart in range(2):
        good, announced = f"{folder}/zzz {restart}.jsonl", f"_announced/{restart}.jsonl"
        for key in (good, announced):
            client.put_object(Bucket="datasets", Key=key, Body=ROWS)
        async with ingest(own_parts) as running:
            await send(own_parts, json.dumps({"dataset": {"bucket": "datasets", "key": announced}}).encode())
            for key in (good, announced):
                await until(lambda key=key: bool(running.uploads.jobs(key)), f"{key} becomes a job")
            failed = running.failed
            await until(lambda failed=failed: len({e.job_id for e in failed}) == len(SIDECARS), "wrong settings fail")
            assert {event.code for event in failed} == {"invalid_job_settings", "invalid_validation_file"}
            held = await quarantine.read_all(own_parts.objects)
            assert {about.place for about in held.values()} >= {f"s3://tunestream/ingest/inbox/{n}" for n in range(3)}


async def send(parts: Embedded, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=parts.stack.kafka)
    await producer.start()
    try:
        await producer.send_and_wait("dataset.uploaded", value)
    finally:
        await producer.stop()


async def test_with_the_broker_gone_every_drop_becomes_a_job_and_is_announced_when_it_is_back(
    own_parts: Embedded,
) -> None:
    jobs = own_parts.objects
    async with ingest(own_parts) as running:
        await running.bucket.put("before.jsonl")
        await until(lambda: bool(running.uploads.jobs("before.jsonl")), "the drop becomes a job")
        own_parts.kill("tansu")
        names = [f"during {number}.jsonl" for number in range(5)]
        for name in names:
            await running.bucket.put(name)

        async def made() -> bool:
            return len([entry for entry in await jobs.list("jobs/") if entry.key.endswith("ingest/result.json")]) == 6

        await until(made, "all drops become jobs", seconds=120)
        own_parts.start("tansu")
        for name in names:
            await until(lambda name=name: bool(running.uploads.jobs(name)), "its event is published", seconds=120)
