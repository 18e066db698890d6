"""A subscriber is started until it has started, whatever its start raises."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import UnknownTopicOrPartitionError

from shared.kafka import subscription as kafka_subscription
from shared.kafka.subscription import Subscription
from shared.retry import Backoff
from shared.tasks import cancel_and_wait


class Subscriber:
    """Fails at its first starts."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.topics = [SimpleNamespace(name="job.control")]
        self.consumer: Any = None
        self.tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.tasks = [asyncio.create_task(asyncio.sleep(3600))]
        self.consumer = SimpleNamespace(
            _coordinator=None, _fetcher=None, assignment=frozenset, _client=SimpleNamespace(close=self.stop)
        )

    async def stop(self) -> None:
        await cancel_and_wait(*self.tasks)


async def test_any_error_of_a_start_is_followed_by_another_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_subscription, "CONNECT_PAUSES", Backoff(0.001, 0.001))
    subscriber: Any = Subscriber(UnknownTopicOrPartitionError(), KeyError("a bug"), OSError(), AssertionError())
    subscription = Subscription(subscriber)
    assert subscription.problem() == "not connected to job.control"
    running = asyncio.create_task(subscription.run())
    async with asyncio.timeout(5):
        await subscription.started.wait()
    assert subscription.problem() is None
    await cancel_and_wait(running)
    assert subscription.problem() == "not connected to job.control"
