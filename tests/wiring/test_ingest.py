"""Ingest on the real store and broker: what is dropped or announced becomes exactly one job."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from services.ingest.intake import Intake
from services.ingest.sweep import Sweep
from shared.bus import Bus, Delivery
from shared.events import DatasetUploaded, Job, JobFailed
from shared.ledger import job_key
from shared.objects import ObjectStore
from tests.embedded import Embedded, until

ROWS = b'{"messages": []}\n' * 10


@dataclass
class Ingest:
    """A running ingest, and what it told the others."""

    parts: Embedded
    bucket: str
    datasets: ObjectStore
    uploaded: list[DatasetUploaded] = field(default_factory=list)
    failed: list[JobFailed] = field(default_factory=list)

    def jobs_of(self, key: str) -> set[str | None]:
        return {event.job_id for event in self.uploaded if event.dataset.key == key}

    async def manifest(self, job_id: str | None) -> Job:
        found = await self.parts.objects.get(job_key(str(job_id)))
        assert found is not None
        return Job.model_validate_json(found[0])


@asynccontextmanager
async def ingest(parts: Embedded) -> AsyncIterator[Ingest]:
    settings = parts.settings.model_copy(
        update={"ingest": parts.settings.ingest.model_copy(update={"sweep_seconds": 0.2, "settle_seconds": 0.1})}
    )
    name = f"ingest-{uuid.uuid4().hex[:6]}"
    objects, bus, ears = parts.objects, Bus(settings.bus, name), Bus(settings.bus, f"{name}-ears")
    sweep = Sweep(objects, Intake(objects, bus, settings, time.time), settings.ingest, "datasets", time.time)
    told = Ingest(parts, "datasets", objects.at("datasets"))

    async def uploaded(event: DatasetUploaded, delivery: Delivery) -> None:
        if event.job_id:
            told.uploaded.append(event)

    async def failed(event: JobFailed, delivery: Delivery) -> None:
        told.failed.append(event)

    bus.subscribe(DatasetUploaded, sweep.announced)
    ears.subscribe(DatasetUploaded, uploaded)
    ears.subscribe(JobFailed, failed)
    await bus.start()
    await ears.start()
    sweeping = asyncio.create_task(sweep.run())
    try:
        yield told
    finally:
        sweeping.cancel()
        await asyncio.gather(sweeping, return_exceptions=True)
        await bus.stop()
        await ears.stop()


async def test_a_drop_becomes_one_job_with_its_sidecars_settings(parts: Embedded) -> None:
    async with ingest(parts) as told:
        await told.datasets.put("drop one/a b.job.yaml", b"suffix: helper\nhyperparameters: {n_epochs: 2}\n")
        await told.datasets.put("drop one/a b.jsonl", ROWS)
        await told.datasets.put("drop one/a b.jsonl.part", ROWS)
        await until(lambda: bool(told.jobs_of("drop one/a b.jsonl")), "the drop becomes a job")
        (job_id,) = told.jobs_of("drop one/a b.jsonl")
        job = await told.manifest(job_id)
    assert (job.spec.suffix, job.spec.hyperparameters.n_epochs, job.alias) == ("helper", 2, "helper")
    assert job.dataset.size == len(ROWS) and job.origin.kind == "drop"
    assert not told.jobs_of("drop one/a b.jsonl.part")


async def test_seen_again_after_a_restart_it_is_still_one_job(parts: Embedded) -> None:
    async with ingest(parts) as told:
        await told.datasets.put("again.jsonl", ROWS)
        await until(lambda: bool(told.jobs_of("again.jsonl")), "the drop becomes a job")
        first = told.jobs_of("again.jsonl")
    async with ingest(parts) as told:
        await told.datasets.put("again.jsonl", ROWS)
        await told.datasets.put("marker.jsonl", ROWS)
        await until(lambda: bool(told.jobs_of("marker.jsonl")), "a later drop becomes a job")
        await told.datasets.put("again.jsonl", ROWS + b"\n")
        await until(lambda: len(told.jobs_of("again.jsonl")) == 2, "other bytes become another job")
    assert first < told.jobs_of("again.jsonl")


async def test_a_strangers_bare_event_takes_the_same_way(parts: Embedded) -> None:
    async with ingest(parts) as told:
        await parts.objects.put("strangers/data.jsonl", ROWS)
        producer = AIOKafkaProducer(bootstrap_servers=parts.stack.kafka)
        await producer.start()
        bare = json.dumps({"dataset": {"bucket": "tunestream", "key": "strangers/data.jsonl"}}).encode()
        traceparent = "00-" + "c" * 32 + "-" + "d" * 16 + "-01"
        for _ in range(3):
            await producer.send_and_wait("dataset.uploaded", bare, headers=[("traceparent", traceparent.encode())])
        await producer.stop()
        await until(lambda: bool(told.jobs_of("strangers/data.jsonl")), "the event becomes a job")
        (job_id,) = told.jobs_of("strangers/data.jsonl")
        job = await told.manifest(job_id)
    assert job.traceparent == traceparent
    assert job.origin.kind == "event"


async def test_wrong_settings_end_the_job_with_the_name_of_the_field(parts: Embedded) -> None:
    async with ingest(parts) as told:
        await told.datasets.put("wrong.job.yaml", b"hyperparameters: {n_epochs: many}\n")
        await told.datasets.put("wrong.jsonl", ROWS)
        await until(lambda: any(event.stage == "ingest" for event in told.failed), "the job fails")
    failure = next(event for event in told.failed if event.stage == "ingest")
    assert failure.code == "invalid_job_settings"
    assert "wrong.job.yaml" in failure.message and "n_epochs" in failure.message
    assert not told.jobs_of("wrong.jsonl")
