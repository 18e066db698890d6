"""The bus against the real broker: the suite for every bus, a broker that is killed, and messages that are too
large."""

from __future__ import annotations

import signal

import pytest

from shared.errors import TransientError
from shared.events import JobControl
from shared.kafka.bus import Bus, Delivery
from tests.contract.bus_suite import DATASETS, BusSuite, events_until, letters_of, uploaded
from tests.support.broker import Broker, running
from tests.support.embedded import Embedded
from tests.support.waiting import until

MIB = 2**20


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
