"""Measures how far the consumers of this process are behind their topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import Any

from aiokafka.errors import KafkaError

from shared.kafka.bus import Bus
from shared.telemetry import metrics

PATIENCE = 1.0  # seconds; asking the broker for a position takes time, and Prometheus waits for at most 10 s


async def measure(bus: Bus) -> None:
    """Set `tunestream_consumer_lag` of every topic: the sum over the partitions that this process reads. Partitions of
    which nothing was fetched yet are left out."""
    behind: Counter[str] = Counter()
    with contextlib.suppress(TimeoutError, KafkaError):
        async with asyncio.timeout(PATIENCE):
            for subscriber in bus.broker.subscribers:
                consumer: Any = getattr(subscriber, "consumer", None)
                for partition in consumer.assignment() if consumer else ():
                    end = consumer.highwater(partition)
                    if end is not None:
                        behind[partition.topic] += end - await consumer.position(partition)
    metrics.consumer_lag.clear()
    for topic, count in behind.items():
        metrics.consumer_lag.labels(topic).set(count)
