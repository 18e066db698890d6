"""What every bus must do: the same tests for the fake and for the real client of a real broker.

A test module runs them with a subclass that overrides the fixture `broker`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import uuid
from collections.abc import Sequence
from typing import Any

import pytest

from shared import ids
from shared.errors import ConfigError, EventRefused, StoreRefused, TransientError
from shared.events import DatasetPointer, DatasetUploaded, Event, JobControl, JobFailed
from shared.kafka.bus import Delivery
from tests.support.broker import Broker, running
from tests.support.waiting import until

CANARY = "canary-4711"
WHERE = {"bucket": "datasets", "key": "a.jsonl"}
DATASETS = DatasetUploaded.topic


class RecordingHandler:
    """A handler that records every event it gets, with its delivery."""

    def __init__(self) -> None:
        self.all: list[tuple[Any, Delivery]] = []

    async def __call__(self, event: Any, delivery: Delivery) -> None:
        self.all.append((event, delivery))

    @property
    def keys(self) -> list[str]:
        """The keys of the uploaded datasets."""
        return [event.dataset.key for event, _ in self.all]

    @property
    def jobs(self) -> list[str]:
        return [event.job_id for event, _ in self.all]


async def letters_of(broker: Broker, service: str, key: bytes | None, wanted: int) -> Sequence[Any]:
    """The first `wanted` dead letters that a service wrote for `dataset.uploaded` records with this record key."""
    return await broker.read(
        f"{DATASETS}.dlq",
        wanted,
        lambda letter: letter.key == key and ("dlq_group", service.encode()) in letter.headers,
    )


async def events_until(broker: Broker, service: str, key: str) -> RecordingHandler:
    """Every `dataset.uploaded` that a service receives, up to the one whose dataset is at `key`."""
    received = RecordingHandler()
    async with running(broker, service, (DatasetUploaded, received)):
        await until(lambda: key in received.keys, "the last event is heard")
    return received


def uploaded(key: str) -> bytes:
    return json.dumps({"dataset": {**WHERE, "key": key}}).encode()


class BusSuite:
    @pytest.fixture
    def broker(self) -> Broker:
        """A broker that has every topic."""
        raise NotImplementedError

    @pytest.fixture
    def name(self) -> str:
        """A unique name for the service, keys and jobs of a test, because tests may share the broker."""
        return f"suite-{uuid.uuid4().hex[:8]}"

    # --- what arrives -----------------------------------------------------------------------------------------

    async def test_an_event_travels_as_a_cloud_event_in_binary_mode(self, broker: Broker, name: str) -> None:
        received = RecordingHandler()
        event = JobFailed(job_id=name, stage="validate", code="invalid_training_file", message="Line 3 …")
        traceparent = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        async with running(broker, "envelope", (JobFailed, received)) as bus:
            await bus.publish(event, ce_id="ftevent-1", subject=name, traceparent=traceparent)
            await until(lambda: name in received.jobs, "the event arrives")
        got, delivery = received.all[received.jobs.index(name)]
        assert got == event
        assert (delivery.topic, delivery.ce_id, delivery.source) == ("job.failed", "ftevent-1", "/tunestream/envelope")
        assert delivery.traceparent == traceparent
        assert delivery.time == pytest.approx(time.time(), abs=30)
        (record,) = await broker.read("job.failed", 1, lambda record: record.key == name.encode())
        headers = dict(record.headers)
        assert json.loads(record.value)["code"] == "invalid_training_file"
        assert headers["ce_specversion"] == b"1.0"
        assert headers["ce_type"] == b"tunestream.job.failed.v1"
        assert headers["ce_subject"] == name.encode()
        assert headers["content-type"] == b"application/json"

    async def test_an_event_without_subject_and_trace_has_no_such_headers(self, broker: Broker, name: str) -> None:
        received = RecordingHandler()
        async with running(broker, name, (JobControl, received)) as bus:
            await bus.publish(JobControl(job_id=name, action="cancel"), ce_id=f"ftevent-{name}")
            await until(lambda: name in received.jobs, "the event arrives")
        assert received.all[received.jobs.index(name)][1].traceparent is None
        (record,) = await broker.read(
            "job.control", 1, lambda record: ("ce_id", f"ftevent-{name}".encode()) in record.headers
        )
        assert record.key is None
        assert not {"ce_subject", "traceparent"} & set(dict(record.headers))

    async def test_unknown_fields_are_ignored_missing_ones_have_defaults_and_json_needs_no_label(
        self, broker: Broker, name: str
    ) -> None:
        event = {"dataset": {**WHERE, "key": name, "future": 1}, "future": {"a": [1]}, "spec": {"suffix": "x"}}
        odd = [("content-type", b"text/plain"), ("ce_time", b"yesterday"), ("traceparent", b"\xff")]
        await broker.send(DATASETS, json.dumps(event).encode(), key=b"\xff not text", headers=odd)
        received = await events_until(broker, name, name)
        found, delivery = received.all[received.keys.index(name)]
        assert found.job_id is None and found.origin is None and found.validation_file is None
        assert found.spec is not None and (found.spec.suffix, found.spec.rerun, found.spec.method) == ("x", 0, None)
        assert not hasattr(found, "future")
        assert delivery.time is None

    async def test_a_strangers_event_has_an_id_of_its_place_in_the_topic(self, broker: Broker, name: str) -> None:
        await broker.send(DATASETS, uploaded(name))
        first, second = [await events_until(broker, f"{name}-{service}", name) for service in ("a", "b")]
        (record,) = await broker.read(DATASETS, 1, lambda record: record.value == uploaded(name))
        wanted = ids.event_id("stranger", DATASETS, record.partition, record.offset)
        for received in (first, second):
            _, delivery = received.all[received.keys.index(name)]
            assert (delivery.ce_id, delivery.source, delivery.traceparent) == (wanted, "", None)

    async def test_a_header_that_is_not_text_does_not_lose_the_event(self, broker: Broker, name: str) -> None:
        received = RecordingHandler()
        async with running(broker, name, (JobControl, received)):
            value = JobControl(job_id=name, action="cancel").model_dump_json().encode()
            await broker.send("job.control", value, headers=[("traceparent", b"\xff\xfe")])
            await until(lambda: name in received.jobs, "the event arrives")

    async def test_an_event_published_while_a_service_is_down_is_waiting_for_it(
        self, broker: Broker, name: str
    ) -> None:
        before, after = f"{name}-before", f"{name}-after"
        await broker.send(DATASETS, uploaded(before))
        await events_until(broker, name, before)
        await broker.send(DATASETS, uploaded(after))
        await events_until(broker, name, after)

    # --- what a handler raises --------------------------------------------------------------------------------

    async def test_an_event_is_delivered_again_after_an_outage_but_not_after_a_bug(
        self, broker: Broker, name: str
    ) -> None:
        tries: dict[str, int] = {}
        outage, bug = f"{name}-outage", f"{name}-bug"

        async def handler(event: JobControl, delivery: Delivery) -> None:
            if event.job_id not in (outage, bug):  # jobs of other tests
                return
            tries[event.job_id] = tries.get(event.job_id, 0) + 1
            if event.job_id == bug:
                raise KeyError("a bug")
            if tries[event.job_id] < 7:
                raise TransientError("the store is away")

        async with running(broker, name, (JobControl, handler)) as bus:
            for job_id in (bug, outage):
                await bus.publish(JobControl(job_id=job_id, action="cancel"), ce_id=ids.derive(job_id), subject=job_id)
            await until(lambda: tries.get(outage) == 7, "the outage is survived")
        assert tries[bug] == 1
        (letter,) = await broker.read(
            "job.control.dlq", 1, lambda letter: ("dlq_group", name.encode()) in letter.headers
        )
        assert letter.key == bug.encode()
        assert dict(letter.headers)["dlq_reason"] == b"KeyError"

    async def test_a_handler_that_refuses_one_event_does_not_hold_up_the_next(self, broker: Broker, name: str) -> None:
        """The store refuses a key that is too long, a future that the handler shares is cancelled, a key is rotated:
        the first becomes a dead letter, the others are no fault of the event."""
        handled: list[str] = []
        tries: dict[str, int] = {}

        async def handler(event: JobControl, delivery: Delivery) -> None:
            job_id = event.job_id
            if not job_id.startswith(name):  # jobs of other tests
                return
            tries[job_id] = tries.get(job_id, 0) + 1
            if job_id.endswith("-long"):
                raise StoreRefused("KeyTooLongError", "the key is too long")
            if job_id.endswith("-rotated") and tries[job_id] < 3:
                raise ConfigError("the object store refuses TUNESTREAM_STORE__SECRET_KEY")
            if job_id.endswith("-cancelled") and tries[job_id] < 3:
                raise asyncio.CancelledError
            handled.append(job_id)

        wanted = [f"{name}-{word}" for word in ("rotated", "cancelled", "good")]
        async with running(broker, name, (JobControl, handler)) as bus:
            for job_id in (f"{name}-long", *wanted):
                await bus.publish(JobControl(job_id=job_id, action="cancel"), ce_id=ids.derive(job_id), subject=name)
            await until(lambda: set(handled) == set(wanted), "the others are handled")
        assert handled == wanted, "one subject keeps its order"
        (letter,) = await broker.read(
            "job.control.dlq", 1, lambda letter: ("dlq_group", name.encode()) in letter.headers
        )
        assert dict(letter.headers)["dlq_reason"] == b"StoreRefused"
        assert json.loads(letter.value)["job_id"] == f"{name}-long"

    @pytest.mark.parametrize(
        "event",
        [
            JobControl.model_construct(job_id="half a pair \ud83d", action="cancel"),
            JobControl.model_construct(job_id=object(), action="cancel"),
        ],
        ids=["surrogate", "no JSON"],
    )
    async def test_an_event_that_cannot_be_written_is_refused(self, broker: Broker, name: str, event: Event) -> None:
        async with running(broker, name) as bus:
            with pytest.raises(EventRefused):
                await bus.publish(event, ce_id=name)

    @pytest.mark.parametrize("what", ["subject", "ce_id", "traceparent"])
    async def test_a_key_or_header_that_cannot_be_written_is_refused(
        self, broker: Broker, name: str, what: str
    ) -> None:
        event = JobControl(job_id=name, action="cancel")
        async with running(broker, name) as bus:
            with pytest.raises(EventRefused):
                await bus.publish(event, **({"ce_id": name} | {what: "half a pair \ud83d"}))

    async def test_an_event_that_is_too_large_is_refused_and_the_next_one_goes_out(
        self, broker: Broker, name: str
    ) -> None:
        received = RecordingHandler()
        async with running(broker, name, (JobFailed, received)) as bus:
            # the model would cut the message
            event = JobFailed.model_construct(job_id=name, stage="validate", code="x", message="y" * 5 * 2**20)
            with pytest.raises(EventRefused):
                await bus.publish(event, ce_id=f"{name}-1", subject=name)
            small = JobFailed(job_id=name, stage="validate", code="x", message="y")
            await bus.publish(small, ce_id=f"{name}-2", subject=name)
            await until(lambda: name in received.jobs, "the next one arrives")

    async def test_a_bus_that_answers_is_not_away(self, broker: Broker, name: str) -> None:
        async with running(broker, name, (JobFailed, RecordingHandler())) as bus:
            assert bus.away_since is None
            assert bus.problem() is None

    # --- what cannot be read ----------------------------------------------------------------------------------

    async def test_what_cannot_be_read_goes_to_the_dead_letter_topic_byte_for_byte(
        self, broker: Broker, name: str
    ) -> None:
        poison = [
            b"\xff\xfe not json",
            b'{"dataset": 7}',
            b"null",
            b'{"dataset": {"bucket": "b", "key": "k"}, "spec": {"typo": 1}}',
        ]
        good = json.dumps({"dataset": {"bucket": "datasets", "key": name}, "unknown": True}).encode()
        await broker.send(DATASETS, *poison, good, key=name.encode(), headers=[("x", b"\xff\x00")])
        received = await events_until(broker, name, name)
        letters = await letters_of(broker, name, name.encode(), len(poison))
        assert sorted(letter.value for letter in letters) == sorted(poison)
        for letter in letters:
            headers = dict(letter.headers)
            assert headers["x"] == b"\xff\x00"
            assert headers["dlq_topic"] == b"dataset.uploaded"
            assert headers["dlq_group"] == name.encode()
            assert b" " not in headers["dlq_reason"]  # the name of a class; a message could quote the data
        event, _ = received.all[received.keys.index(name)]
        assert event.dataset == DatasetPointer(bucket="datasets", key=name)
        assert event.job_id is None and event.spec is None

    async def test_every_wrong_thing_is_kept_byte_for_byte_and_its_reason_quotes_nothing(
        self, broker: Broker, name: str
    ) -> None:
        wrong = [
            CANARY.encode(),
            b"",
            b"null",
            b"\xff\xfe" + CANARY.encode(),
            json.dumps(CANARY).encode(),
            json.dumps([WHERE]).encode(),
            b"{}",
            json.dumps({"dataset": CANARY}).encode(),
            json.dumps({"dataset": {"bucket": "datasets"}}).encode(),
            json.dumps({"dataset": {**WHERE, "size": CANARY}}).encode(),
            json.dumps({"dataset": WHERE, "spec": {CANARY: 1}}).encode(),
            json.dumps({"dataset": WHERE, "spec": {"rerun": -1, "suffix": CANARY * 10}}).encode(),
            b'{"dataset": ' + b"[" * 100_000,
        ]
        headers = [("ce_id", CANARY.encode()), ("odd", b"\xff\x00"), ("odd", b"twice")]
        await broker.send(DATASETS, *wrong, key=name.encode(), headers=headers)
        await broker.send(DATASETS, uploaded(name))
        await events_until(broker, name, name)
        letters = await letters_of(broker, name, name.encode(), len(wrong))
        assert [letter.value for letter in letters] == wrong
        for letter in letters:
            assert list(letter.headers[: len(headers)]) == headers
            ours = dict(letter.headers[len(headers) :])
            ours.pop("dlq_field", None)
            assert set(ours) == {"dlq_reason", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_group"}
            assert re.fullmatch(rb"[A-Za-z]+", ours["dlq_reason"])
            assert CANARY.encode() not in b"".join(dict(letter.headers[len(headers) :]).values())

    @pytest.mark.parametrize(
        "value",
        [
            b'{"dataset": {"bucket": "datasets", "key": "k", "size": 1e999}}',
            b'{"dataset": {"bucket": "datasets", "key": "k", "size": NaN}}',
            b'{"dataset": {"bucket": "datasets", "key": "k", "size": ' + b"9" * 5000 + b"}}",
            b'{"dataset": {"bucket": "datasets", "key": "k"}, "spec": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001,
            b"\x00" * 100,
            b"\xef\xbb\xbf{}",
        ],
        ids=["1e999", "NaN", "5000 digits", "deep", "zeros", "BOM"],
    )
    async def test_odd_values_stop_nobody(self, broker: Broker, name: str, value: bytes) -> None:
        await broker.send(DATASETS, value, key=name.encode())
        await broker.send(DATASETS, uploaded(name))
        await events_until(broker, name, name)
        (letter,) = await letters_of(broker, name, name.encode(), 1)
        assert letter.value == value

    async def test_odd_headers_stop_nobody_and_mean_nothing(self, broker: Broker, name: str) -> None:
        """FastStream would send an answer to the topic in `reply_to`."""
        headers: list[tuple[str, Any]] = [
            ("reply_to", b"model.degraded.dlq"),
            ("correlation_id", b"\xff"),
            ("content-type", b"application/x-protobuf"),
            ("ce_id", None),
            ("", b""),
            ("ce_time", b"9" * 5000),
        ]
        await broker.send(DATASETS, uploaded(f"{name}-odd"), b"poison", key=name.encode(), headers=headers)
        await broker.send(DATASETS, uploaded(name))
        received = await events_until(broker, name, name)
        assert f"{name}-odd" in received.keys
        await broker.send("model.degraded.dlq", b"mark", key=name.encode())
        (first,) = await broker.read(
            "model.degraded.dlq", 1, lambda record: record.key == name.encode() or not record.value
        )
        assert first.value == b"mark", "no answer was sent"
        (letter,) = await letters_of(broker, name, name.encode(), 1)
        assert list(letter.headers[: len(headers)]) == headers

    async def test_a_dead_letter_names_the_field_that_is_wrong(self, broker: Broker, name: str) -> None:
        wrong = {
            json.dumps({"dataset": {"bucket": "datasets"}}).encode(): b"dataset.key",
            json.dumps({"dataset": WHERE, "spec": {"rerun": -1}}).encode(): b"spec.rerun",
            json.dumps({"dataset": WHERE, "spec": {CANARY: 1}}).encode(): b"spec",
            b"not JSON": None,
        }
        await broker.send(DATASETS, *wrong, key=name.encode())
        await broker.send(DATASETS, uploaded(name))
        await events_until(broker, name, name)
        letters = await letters_of(broker, name, name.encode(), len(wrong))
        assert {letter.value: dict(letter.headers).get("dlq_field") for letter in letters} == wrong

    async def test_a_record_of_nothing_but_headers_is_a_dead_letter(self, broker: Broker, name: str) -> None:
        mark = ("x", name.encode())
        await broker.send(DATASETS, None, headers=[mark])
        await broker.send(DATASETS, uploaded(name))
        await events_until(broker, name, name)
        (letter,) = await broker.read(
            f"{DATASETS}.dlq",
            1,
            lambda letter: mark in letter.headers and ("dlq_group", name.encode()) in letter.headers,
        )
        assert letter.value == b""
