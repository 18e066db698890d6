"""What a scrape sees of the real bus: how far a consumer is behind, and what went to the dead letters."""

from __future__ import annotations

import asyncio

from shared.events import JobControl, ModelDegraded
from shared.kafka import lag
from shared.kafka.bus import Bus, Delivery
from tests.support.embedded import Embedded
from tests.support.scrape import Scrape, scrape
from tests.support.waiting import until

TOPIC = ModelDegraded.topic


async def test_lag_counts_messages_that_were_not_consumed_yet(parts: Embedded) -> None:
    may_go_on = asyncio.Event()
    taken: list[str] = []

    async def handler(event: ModelDegraded, delivery: Delivery) -> None:
        taken.append(event.model)
        await may_go_on.wait()

    sender, bus = Bus(parts.settings.bus, "lag-sender"), Bus(parts.settings.bus, "lag")
    bus.subscribe(ModelDegraded, handler)

    async def look() -> Scrape:
        return await scrape(measure=lambda: lag.measure(bus))

    async def behind(count: int) -> bool:
        seen = await look()
        return (
            seen.has("tunestream_consumer_lag", topic=TOPIC)
            and seen.value("tunestream_consumer_lag", topic=TOPIC) == count
        )

    assert not (await look()).has("tunestream_consumer_lag", topic=TOPIC)  # not connected, so no lag is known
    await sender.start()
    try:
        for number in range(5):  # with one key, all messages are in one partition, in order
            await sender.publish(ModelDegraded(model=f"m{number}", alert="x"), ce_id=f"lag-{number}", subject="one")
        await bus.start()
        await until(lambda: bool(taken), "the first event arrives")
        await until(lambda: behind(4), "four events wait")
        may_go_on.set()
        await until(lambda: behind(0), "all events are taken")
    finally:
        await bus.stop()
        await sender.stop()
    assert len(taken) == 5


async def test_dead_letters_are_counted_by_topic_and_reason(parts: Embedded) -> None:
    async def handler(event: JobControl, delivery: Delivery) -> None:
        if event.job_id == "ftjob-metrics":
            raise KeyError("canary")

    before = await scrape()
    bus = Bus(parts.settings.bus, "dead-letters")
    bus.subscribe(JobControl, handler)
    await bus.start()
    try:
        await bus.publish(JobControl(job_id="ftjob-metrics", action="cancel"), ce_id="x", subject="x")

        async def counted() -> bool:
            labels = {"topic": "job.control", "reason": "KeyError"}
            seen, name = await scrape(), "tunestream_dead_letters_total"
            return seen.value(name, **labels) - before.value(name, **labels) == 1

        await until(counted, "the dead letter is counted")
    finally:
        await bus.stop()
    assert "canary" not in str((await scrape()).labels("tunestream_dead_letters_total"))
