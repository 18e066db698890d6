"""The bus against the real broker: the suite for every bus, a broker that is killed, and messages that are too
large."""

from __future__ import annotations

import asyncio
import json
import signal
import struct
import time
from typing import Any

import pytest
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.util import calc_crc32c

from shared.errors import ConfigError, TransientError
from shared.events import DatasetUploaded, JobControl
from shared.kafka import subscription as kafka_subscription
from shared.kafka.bus import Bus, Delivery
from shared.tasks import cancel_and_wait
from tests.contract.bus_suite import DATASETS, BusSuite, RecordingHandler, events_until, letters_of, uploaded
from tests.support.broker import Broker, running
from tests.support.embedded import Embedded
from tests.support.waiting import until

MIB = 2**20
CRC_AT, ATTRIBUTES_AT, RECORDS_AT = 17, 21, 61  # places in a batch, https://kafka.apache.org/documentation/#recordbatch


class Damaged(BatchBuilder):
    """A batch of one record that our client cannot read, with a right checksum."""

    def __init__(self, damage: str) -> None:
        super().__init__(16_384, 0)
        self.append(timestamp=None, key=b"key", value=b"value", headers=[("header", b"value")])
        self._damage = damage

    def _build(self) -> bytes:
        batch = bytearray(super()._build())
        if self._damage == "codec":
            batch[ATTRIBUTES_AT + 1] = 2  # snappy
        elif self._damage == "compressed":
            batch[ATTRIBUTES_AT + 1] = 1  # gzip
            batch[RECORDS_AT:] = bytes(len(batch) - RECORDS_AT)
        elif self._damage == "structure":
            batch[RECORDS_AT:] = b"\x7f" * (len(batch) - RECORDS_AT)
        else:
            place = batch.index(b"header")
            batch[place : place + 2] = b"\xff\xfe"
        struct.pack_into(">I", batch, CRC_AT, calc_crc32c(bytes(batch[ATTRIBUTES_AT:])))
        self._buffer = bytes(batch)
        return self._buffer


class TestBus(BusSuite):
    @pytest.fixture
    def broker(self, parts: Embedded) -> Broker:
        return parts.broker


async def test_a_huge_message_blocks_nothing(parts: Embedded) -> None:
    """A message just under the usual limit of the broker is kept whole; of a larger one the dead letter holds only its
    place."""
    nearly, giant = (b"x" * size for size in (MIB - 200, 4 * MIB))
    await parts.broker.send(DATASETS, nearly, giant, key=b"huge", headers=[("ce_id", b"big")])
    await parts.broker.send(DATASETS, uploaded("small.jsonl"), key=b"right")
    await events_until(parts.broker, "huge", "small.jsonl")
    (kept,) = await letters_of(parts.broker, "huge", b"huge", 1)
    assert kept.value == nearly and ("ce_id", b"big") in kept.headers
    (address,) = await parts.broker.read(
        f"{DATASETS}.dlq",
        1,
        lambda letter: "dlq_omitted" in dict(letter.headers) and ("dlq_group", b"huge") in letter.headers,
    )
    assert (address.key, address.value) == (None, b"")
    assert dict(address.headers)["dlq_omitted"] == str(len(giant)).encode()
    assert int(dict(address.headers)["dlq_offset"]) == int(dict(kept.headers)["dlq_offset"]) + 1


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

    async with running(own_parts.broker, "killed", (JobControl, handler)) as bus:
        await bus.publish(JobControl(job_id="before", action="cancel"), ce_id="before", subject="before")
        await until(lambda: "before" in got, "the first event arrives")
        own_parts.kill("tansu", signal.SIGKILL)
        own_parts.start("tansu")
        await until(lambda: publish(bus, "after"), "the producer finds the broker again", 60)
        await until(lambda: "after" in got, "the consumer finds the broker again", 60)


# --- outages -------------------------------------------------------------------------------------------------------


def control(job_id: str) -> JobControl:
    return JobControl(job_id=job_id, action="cancel")


def impatient(parts: Embedded, service: str) -> Bus:
    return Bus(parts.settings.bus.model_copy(update={"publish_seconds": 2.0}), service)


async def test_a_broker_that_stands_still_ends_no_publish_late_and_gets_each_event_once(
    own_parts: Embedded,
) -> None:
    """The broker is paused: connections are open, and nothing answers. The same event is published again and again."""
    bus = impatient(own_parts, "paused")
    received = RecordingHandler()
    bus.subscribe(JobControl, received)
    await bus.start()
    try:
        await bus.publish(control("before"), ce_id="before", subject="before")
        # it has another key, so perhaps another partition, which may be read later
        await until(lambda: "before" in received.jobs, "the first event arrives")
        own_parts.signal("tansu", signal.SIGSTOP)
        took = []
        for job_id in ("one", "one", "two", "one", "two"):
            began = time.monotonic()
            with pytest.raises(TransientError):
                await bus.publish(control(job_id), ce_id=job_id, subject="same key")
            took.append(time.monotonic() - began)
        assert max(took) < 4
        assert max(took[1:]) < 2, "it is known that the broker is away"
        await until(lambda: bus.away_since is not None, "the bus knows that the broker is away")
        assert bus.problem() == "the message bus does not answer"
        own_parts.signal("tansu", signal.SIGCONT)
        await until(lambda: bus.away_since is None, "the bus notices that the broker is back", 60)
        for job_id in ("one", "two", "three"):
            await bus.publish(control(job_id), ce_id=job_id, subject="same key")
        await until(lambda: "three" in received.jobs, "all events arrive", 60)
        assert received.jobs == ["before", "one", "two", "three"]
    finally:
        own_parts.signal("tansu", signal.SIGCONT)
        await bus.stop()


async def test_the_bus_knows_that_the_broker_is_gone_without_publishing_and_stops_within_seconds(
    own_parts: Embedded,
) -> None:
    bus = impatient(own_parts, "gone")
    bus.subscribe(JobControl, RecordingHandler())
    bus.subscribe(DatasetUploaded, RecordingHandler())
    await bus.start()
    try:
        assert bus.away_since is None
        own_parts.signal("tansu", signal.SIGSTOP)
        await until(lambda: bus.away_since is not None, "nobody published, and yet the bus knows")
        with pytest.raises(TransientError):
            await bus.publish(control("one"), ce_id="one")
    finally:
        async with asyncio.timeout(15):
            await bus.stop()
        own_parts.signal("tansu", signal.SIGCONT)


async def test_a_start_without_a_broker_waits_for_it(own_parts: Embedded) -> None:
    own_parts.kill("tansu")
    bus = impatient(own_parts, "early")
    received = RecordingHandler()
    bus.subscribe(JobControl, received)
    starting = asyncio.create_task(bus.start())
    try:
        await until(lambda: bus.away_since is not None, "the bus knows that there is no broker")
        with pytest.raises(TransientError):
            await bus.publish(control("early"), ce_id="early")
        assert not starting.done()
        own_parts.start("tansu")
        await starting
        assert bus.problem() is None
        await bus.publish(control("late"), ce_id="late", subject="late")
        await until(lambda: received.jobs == ["late"], "the event arrives")
    finally:
        await cancel_and_wait(starting)
        await bus.stop()


@pytest.mark.parametrize("task", ["loop", "coordinator", "fetcher"])
async def test_a_consumer_whose_task_ended_is_started_again(
    own_parts: Embedded, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiokafka's tasks end at what they do not expect, and FastStream's loop at a cancellation."""
    monkeypatch.setattr(kafka_subscription, "LOOK_SECONDS", 0.2)
    received = RecordingHandler()
    async with running(own_parts.broker, "ended", (JobControl, received)) as bus:
        subscriber: Any = next(iter(bus.broker.subscribers))
        consumer = subscriber.consumer
        ended = {
            "loop": subscriber.tasks[0],
            "coordinator": consumer._coordinator._coordination_task,
            "fetcher": consumer._fetcher._fetch_task,
        }
        ended[task].cancel()
        await until(lambda: subscriber.consumer not in (None, consumer), "another consumer starts")
        await bus.publish(control("after"), ce_id="after", subject="after")
        await until(lambda: received.jobs == ["after"], "the event arrives")


# --- many replicas, and records that our client cannot read --------------------------------------------------------


async def test_a_replica_without_partitions_has_no_problem(own_parts: Embedded) -> None:
    """Two replicas share a topic of one partition; whoever has none is no reason to worry about."""
    await own_parts.topic("one.partition", 1)
    event = type("OnePartition", (JobControl,), {"topic": "one.partition"})
    async with (
        running(own_parts.broker, "replica", (event, RecordingHandler())) as first,
        running(own_parts.broker, "replica", (event, RecordingHandler())) as second,
    ):
        assert first.problem() is None and second.problem() is None


async def test_a_stuck_message_lets_the_other_partitions_pass(own_parts: Embedded) -> None:
    handled: list[str] = []

    async def handler(event: JobControl, delivery: Delivery) -> None:
        if event.job_id == "stuck":
            raise TransientError("its store is away")
        handled.append(event.job_id)

    async with running(own_parts.broker, "stuck", (JobControl, handler)) as bus:
        await bus.publish(control("stuck"), ce_id="stuck", subject="stuck")
        wanted = {f"other-{number}" for number in range(40)}
        for job_id in wanted:  # of which some share its partition, and wait
            await bus.publish(control(job_id), ce_id=job_id, subject=job_id)
        await until(lambda: len(handled) >= 20, "those of other partitions are handled")


async def test_a_message_that_is_stuck_for_too_long_becomes_a_dead_letter(own_parts: Embedded) -> None:
    handled: list[str] = []

    async def handler(event: JobControl, delivery: Delivery) -> None:
        if event.job_id == "stuck":
            raise ConfigError("the object store refuses TUNESTREAM_STORE__SECRET_KEY")
        handled.append(event.job_id)

    settings = own_parts.settings.bus.model_copy(update={"redelivery_hours": 1 / 3600})
    bus = Bus(settings, "tired")
    bus.subscribe(JobControl, handler)
    await bus.start()
    try:
        for job_id in ("stuck", "behind"):
            await bus.publish(control(job_id), ce_id=job_id, subject="same key")
        await until(lambda: handled == ["behind"], "the one behind it is handled")
    finally:
        await bus.stop()
    (letter,) = await own_parts.broker.read("job.control.dlq", 1)
    assert json.loads(letter.value)["job_id"] == "stuck"
    assert dict(letter.headers)["dlq_reason"] == b"ConfigError"


@pytest.mark.parametrize("damage", ["codec", "compressed", "structure", "header"])
async def test_a_batch_that_our_client_cannot_read_blocks_nothing(own_parts: Embedded, damage: str) -> None:
    """A stranger compresses with a codec that is not installed, or sends bytes that are no records."""
    await own_parts.broker.send(DATASETS, uploaded("before.jsonl"))
    async with own_parts.broker.producer() as producer:
        await (await producer.send_batch(Damaged(damage), DATASETS, partition=0))
    await own_parts.broker.send(DATASETS, uploaded("after.jsonl"))
    received = await events_until(own_parts.broker, "damaged", "after.jsonl")
    assert received.keys == ["before.jsonl", "after.jsonl"]
    (letter,) = await own_parts.broker.read(f"{DATASETS}.dlq", 1)
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["dlq_omitted"]) == (None, b"", b"unreadable")
    assert (headers["dlq_topic"], headers["dlq_partition"], headers["dlq_offset"]) == (DATASETS.encode(), b"0", b"1")
