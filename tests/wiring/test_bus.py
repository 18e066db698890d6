"""The bus against the real broker: what is committed, what comes again, what ends in the dead-letter topic."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord

from shared import ids
from shared.bus import Bus, Delivery
from shared.errors import TransientError
from shared.events import DatasetPointer, DatasetUploaded, Event, JobControl, JobFailed
from tests.support.embedded import Embedded, until


@asynccontextmanager
async def running(parts: Embedded, service: str, *subscriptions: tuple[type[Event], Any]) -> AsyncIterator[Bus]:
    bus = Bus(parts.settings.bus, service)
    for event_type, handler in subscriptions:
        bus.subscribe(event_type, handler)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


@asynccontextmanager
async def raw_producer(parts: Embedded, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=parts.stack.kafka, **options)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def read_until(
    parts: Embedded, topic: str, wanted: int, matching: Callable[[ConsumerRecord], bool] = lambda record: True
) -> list[ConsumerRecord]:
    """The first `wanted` records of a topic that match."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=parts.stack.kafka, auto_offset_reset="earliest")
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        while len(records) < wanted:
            record = await consumer.getone()
            if matching(record):
                records.append(record)
    finally:
        await consumer.stop()
    return records


async def test_an_event_travels_as_a_cloud_event_in_binary_mode(parts: Embedded) -> None:
    got: list[tuple[JobFailed, Delivery]] = []

    async def handler(event: JobFailed, delivery: Delivery) -> None:
        if event.job_id == "ftjob-1":  # other tests' jobs fail, too
            got.append((event, delivery))

    event = JobFailed(job_id="ftjob-1", stage="validate", code="invalid_training_file", message="Line 3 …")
    traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    async with running(parts, "envelope", (JobFailed, handler)) as bus:
        await bus.publish(event, ce_id="ftevent-1", subject="ftjob-1", traceparent=traceparent)
        await until(lambda: bool(got), "the event arrives")
    assert got[0][0] == event
    delivery = got[0][1]
    assert (delivery.topic, delivery.ce_id, delivery.source) == ("job.failed", "ftevent-1", "/tunestream/envelope")
    assert delivery.traceparent == traceparent
    assert delivery.time == pytest.approx(time.time(), abs=30)
    (record,) = await read_until(parts, "job.failed", 1, lambda record: record.key == b"ftjob-1")
    headers = dict(record.headers)
    assert json.loads(record.value)["code"] == "invalid_training_file"
    assert headers["ce_specversion"] == b"1.0"
    assert headers["ce_type"] == b"tunestream.job.failed.v1"
    assert headers["ce_subject"] == b"ftjob-1"
    assert headers["content-type"] == b"application/json"


async def test_what_cannot_be_read_goes_to_the_dead_letter_topic_byte_for_byte(parts: Embedded) -> None:
    got: list[DatasetUploaded] = []

    async def handler(event: DatasetUploaded, delivery: Delivery) -> None:
        got.append(event)

    poison = [
        b"\xff\xfe not json",
        b'{"dataset": 7}',
        b"null",
        b'{"dataset": {"bucket": "b", "key": "k"}, "spec": {"typo": 1}}',
    ]
    good = b'{"dataset": {"bucket": "datasets", "key": "behind-poison.jsonl"}, "unknown": true}'
    wanted = DatasetPointer(bucket="datasets", key="behind-poison.jsonl")
    async with raw_producer(parts) as producer:
        for value in (*poison, good):
            await producer.send_and_wait("dataset.uploaded", value, key=b"k", headers=[("x", b"\xff\x00")])
    async with running(parts, "poison", (DatasetUploaded, handler)):
        await until(lambda: wanted in [event.dataset for event in got], "the good event behind the poison arrives")
    letters = await read_until(
        parts,
        "dataset.uploaded.dlq",
        len(poison),
        lambda letter: letter.key == b"k" and ("dlq_group", b"poison") in letter.headers,
    )
    assert sorted(letter.value for letter in letters) == sorted(poison)
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["x"] == b"\xff\x00"
        assert headers["dlq_topic"] == b"dataset.uploaded"
        assert headers["dlq_group"] == b"poison"
        assert b" " not in headers["dlq_reason"]  # a class name, never a message that could quote the data
    event = next(event for event in got if event.dataset == wanted)
    assert event.job_id is None and event.spec is None


async def test_a_header_that_is_not_text_does_not_lose_the_event(parts: Embedded) -> None:
    got: list[JobControl] = []

    async def handler(event: JobControl, delivery: Delivery) -> None:
        got.append(event)

    async with running(parts, "odd-header", (JobControl, handler)), raw_producer(parts) as producer:
        value = JobControl(job_id="ftjob-odd", action="cancel").model_dump_json().encode()
        await producer.send_and_wait("job.control", value, headers=[("traceparent", b"\xff\xfe")])
        await until(lambda: any(event.job_id == "ftjob-odd" for event in got), "the event arrives")


async def test_an_outage_delivers_again_and_a_bug_does_not(parts: Embedded) -> None:
    tries: dict[str, int] = {}

    async def handler(event: JobControl, delivery: Delivery) -> None:
        if event.job_id not in ("ftjob-outage", "ftjob-bug"):
            return
        tries[event.job_id] = tries.get(event.job_id, 0) + 1
        if event.job_id == "ftjob-bug":
            raise KeyError("a bug")
        if tries[event.job_id] < 7:
            raise TransientError("the store is away")

    async with running(parts, "outage", (JobControl, handler)) as bus:
        for job_id in ("ftjob-bug", "ftjob-outage"):
            await bus.publish(JobControl(job_id=job_id, action="cancel"), ce_id=ids.derive(job_id), subject=job_id)
        await until(lambda: tries.get("ftjob-outage") == 7, "the outage is survived")
    assert tries["ftjob-bug"] == 1
    letters = await read_until(parts, "job.control.dlq", 1)
    assert [dict(letter.headers)["dlq_reason"] for letter in letters] == [b"KeyError"]


async def test_the_broker_is_killed_and_nothing_that_it_took_is_lost(own_parts: Embedded) -> None:
    got: list[str] = []

    async def handler(event: JobControl, delivery: Delivery) -> None:
        got.append(event.job_id)

    async def publish(bus: Bus, job_id: str) -> bool:
        try:
            await bus.publish(JobControl(job_id=job_id, action="cancel"), ce_id=job_id, subject=job_id)
        except TransientError:
            return False
        return True

    async with running(own_parts, "killed", (JobControl, handler)) as bus:
        await bus.publish(JobControl(job_id="before", action="cancel"), ce_id="before", subject="before")
        await until(lambda: "before" in got, "the first event arrives")
        own_parts.kill("tansu", signal.SIGKILL)
        own_parts.start("tansu")
        await until(lambda: publish(bus, "after"), "the producer finds the broker again", 60)
        await until(lambda: "after" in got, "the consumer finds the broker again", 60)
