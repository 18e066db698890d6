"""What strangers may send: what is understood, what becomes a dead letter, and that neither blocks what follows."""

from __future__ import annotations

import json
import re

from aiokafka import ConsumerRecord

from shared.bus import Delivery
from shared.events import DatasetUploaded
from tests.support.embedded import Embedded, until
from tests.wiring.test_bus import raw_producer, read_until, running

CANARY = "canary-4711"
MIB = 2**20
WHERE = {"bucket": "datasets", "key": "a.jsonl"}
DEAD_LETTERS = "dataset.uploaded.dlq"


async def send(
    parts: Embedded, key: bytes, *values: bytes | None, headers: list[tuple[str, bytes]] | None = None
) -> None:
    async with raw_producer(parts, max_request_size=8 * MIB) as producer:
        for value in values:
            await producer.send_and_wait("dataset.uploaded", value, key=key, partition=0, headers=headers or [])


async def letters_of(parts: Embedded, service: str, key: bytes | None, wanted: int) -> list[ConsumerRecord]:
    """The dead letters that one service wrote of the records with this key."""
    return await read_until(
        parts,
        DEAD_LETTERS,
        wanted,
        lambda letter: letter.key == key and ("dlq_group", service.encode()) in letter.headers,
    )


async def taken(parts: Embedded, service: str, key: str) -> list[DatasetUploaded]:
    """Every event that a service hears, up to one that points at `key`."""
    heard: list[DatasetUploaded] = []

    async def handler(event: DatasetUploaded, delivery: Delivery) -> None:
        heard.append(event)

    async with running(parts, service, (DatasetUploaded, handler)):
        await until(lambda: any(event.dataset.key == key for event in heard), "what comes behind is heard")
    return heard


async def test_unknown_fields_are_ignored_missing_ones_have_defaults_and_json_needs_no_label(parts: Embedded) -> None:
    event = {"dataset": {**WHERE, "key": "labelled.jsonl", "future": 1}, "future": {"a": [1]}, "spec": {"suffix": "x"}}
    await send(
        parts,
        b"\xff not text",
        json.dumps(event).encode(),
        headers=[("content-type", b"text/plain"), ("ce_time", b"yesterday"), ("traceparent", b"\xff")],
    )
    heard = await taken(parts, "lenient", "labelled.jsonl")
    found = next(event for event in heard if event.dataset.key == "labelled.jsonl")
    assert found.job_id is None and found.origin is None and found.validation_file is None
    assert found.spec is not None and (found.spec.suffix, found.spec.rerun, found.spec.method) == ("x", 0, None)
    assert not hasattr(found, "future")


async def test_every_wrong_thing_is_kept_byte_for_byte_and_its_reason_quotes_nothing(parts: Embedded) -> None:
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
    await send(parts, b"wrong", *wrong, headers=headers)
    await send(parts, b"right", json.dumps({"dataset": {**WHERE, "key": "behind.jsonl"}}).encode())
    await taken(parts, "strict", "behind.jsonl")
    letters = await letters_of(parts, "strict", b"wrong", len(wrong))
    assert [letter.value for letter in letters] == wrong
    for letter in letters:
        assert list(letter.headers[: len(headers)]) == headers
        ours = dict(letter.headers[len(headers) :])
        assert set(ours) == {"dlq_reason", "dlq_topic", "dlq_partition", "dlq_offset", "dlq_group"}
        assert re.fullmatch(rb"[A-Za-z]+", ours["dlq_reason"])
        assert CANARY.encode() not in b"".join(ours.values())


async def test_a_huge_message_blocks_nothing(parts: Embedded) -> None:
    """Just under the broker's usual limit it is kept whole; what no dead letter can hold leaves its address."""
    nearly, giant = (b"x" * size for size in (MIB - 200, 4 * MIB))
    await send(parts, b"huge", nearly, giant, headers=[("ce_id", b"big")])
    await send(parts, b"right", json.dumps({"dataset": {**WHERE, "key": "small.jsonl"}}).encode())
    await taken(parts, "huge", "small.jsonl")
    (kept,) = await letters_of(parts, "huge", b"huge", 1)
    assert kept.value == nearly and ("ce_id", b"big") in kept.headers
    (address,) = await letters_of(parts, "huge", None, 1)
    assert address.value == b""
    assert dict(address.headers)["dlq_omitted"] == str(len(giant)).encode()
    assert int(dict(address.headers)["dlq_offset"]) == int(dict(kept.headers)["dlq_offset"]) + 1


async def test_a_record_of_nothing_but_headers_is_a_dead_letter(parts: Embedded) -> None:
    async with raw_producer(parts) as producer:
        batch = producer.create_batch()
        batch.append(key=None, value=None, timestamp=None, headers=[("x", b"y")])
        await (await producer.send_batch(batch, "dataset.uploaded", partition=0))
    await send(parts, b"right", json.dumps({"dataset": {**WHERE, "key": "after-nothing.jsonl"}}).encode())
    await taken(parts, "nothing", "after-nothing.jsonl")
    (letter,) = await read_until(parts, DEAD_LETTERS, 1, lambda letter: ("x", b"y") in letter.headers)
    assert letter.value == b"" and ("dlq_group", b"nothing") in letter.headers
