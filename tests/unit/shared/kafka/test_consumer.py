"""Commits that the broker does not take. What a consumer does with records that it cannot read: tests/wiring."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import (
    CommitFailedError,
    GroupAuthorizationFailedError,
    IllegalStateError,
    KafkaError,
    UnknownError,
)

from shared.kafka import consumer
from shared.kafka.consumer import COMMIT_TRIES, Consumer
from shared.retry import Backoff


class Commits:
    """What the broker answers to commits: each is refused with the next of `answers`; without one it is taken."""

    def __init__(self) -> None:
        self.answers: list[KafkaError] = []
        self.asked: list[Any] = []

    def answer(self, offsets: Any) -> None:
        self.asked.append(offsets)
        if self.answers:
            raise self.answers.pop(0)


@pytest.fixture
def commits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Commits]:
    found = Commits()

    async def commit(_: AIOKafkaConsumer, offsets: Any = None) -> None:
        found.answer(offsets)

    monkeypatch.setattr(AIOKafkaConsumer, "commit", commit)
    monkeypatch.setattr(consumer, "COMMIT_PAUSES", Backoff(0.0, 0.0))
    yield found


@pytest.fixture
async def reader() -> Consumer:
    async def unreadable(topic: str, partition: int, offset: int, reason: str) -> None:
        raise AssertionError("no record is read here")

    return Consumer(unreadable=unreadable)


async def test_a_commit_is_tried_again_while_the_broker_has_no_store(
    commits: Commits, reader: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    commits.answers = [UnknownError(), UnknownError()]
    await reader.commit()
    assert len(commits.asked) == 3
    assert not caplog.records


async def test_a_commit_that_fails_for_long_is_left_to_the_next_one(
    commits: Commits, reader: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    commits.answers = [UnknownError() for _ in range(COMMIT_TRIES)]
    await reader.commit()
    (record,) = caplog.records
    assert (record.levelno, record.exc_info) == (logging.WARNING, None)
    assert record.getMessage() == "offsets are not committed yet: they go with the next commit"
    assert vars(record)["reason"] == "UnknownError"


@pytest.mark.parametrize("error", [CommitFailedError(), IllegalStateError("No partitions assigned")])
async def test_partitions_that_another_consumer_has_now_are_no_error(
    error: KafkaError, commits: Commits, reader: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    commits.answers = [error]
    await reader.commit()
    assert len(commits.asked) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_a_missing_right_is_told(commits: Commits, reader: Consumer) -> None:
    commits.answers = [GroupAuthorizationFailedError("trainer.job.control")]
    with pytest.raises(GroupAuthorizationFailedError):
        await reader.commit()
    assert len(commits.asked) == 1
