"""The producer over a client of aiokafka that behaves badly: an idempotent one never gives up a record."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka.errors import (
    BrokerResponseError,
    InvalidTopicError,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    NodeNotReadyError,
    NotEnoughReplicasError,
    OutOfOrderSequenceNumber,
    PolicyViolationError,
    RecordListTooLargeError,
    RecordTooLargeError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from shared.errors import EventRefused, TransientError
from shared.kafka import producer as kafka_producer
from shared.kafka.producer import Outgoing, Producer
from shared.settings import BusSettings
from shared.tasks import cancel_and_wait
from tests.support.waiting import until


class Client:
    """A client of aiokafka. While `away`, it keeps what it is given, for ever if need be."""

    def __init__(self) -> None:
        self.away = False
        self.error: Exception | None = None
        self.given: list[str] = []
        self.sent: list[str] = []
        self._back = asyncio.Event()
        self.client = self._sender = self

    async def send_and_wait(self, topic: str, *, value: bytes, key: bytes | None, headers: object) -> None:
        if self.error is not None:
            raise self.error
        self.given.append(value.decode())
        while self.away:
            await self._back.wait()
        self.sent.append(value.decode())

    async def force_metadata_update(self) -> bool:
        if self.away:
            await asyncio.Event().wait()
        return True

    def come_back(self) -> None:
        self.away = False
        self._back.set()

    async def start(self) -> None:
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        while self.away:
            await self._back.wait()

    async def close(self) -> None:
        pass


class Broker:
    """Counts the clients that connect to it."""

    def __init__(self) -> None:
        self.clients: list[Client] = []

    def connect(self, **options: Any) -> Client:
        self.clients.append(Client())
        return self.clients[-1]


@pytest.fixture
async def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(kafka_producer, "AIOKafkaProducer", broker.connect)
    monkeypatch.setattr(kafka_producer, "WATCH_SECONDS", 0.05)
    monkeypatch.setattr(kafka_producer, "CLOSE_SECONDS", 0.05)
    monkeypatch.setattr(kafka_producer, "AWAY_SECONDS", 0.02)
    return broker


@pytest.fixture
async def producer(broker: Broker) -> AsyncIterator[Producer]:
    producer = Producer(BusSettings(publish_seconds=0.2))
    await producer.start()
    watching = asyncio.create_task(producer.watch())
    yield producer
    await cancel_and_wait(watching)
    await producer.stop()


def record(value: str, topic: str = "job.control") -> Outgoing:
    return Outgoing(topic, value.encode(), b"key", [])


async def publish(producer: Producer, name: str) -> bool:
    try:
        await producer.send(name, record(name))
    except TransientError:
        return False
    return True


async def test_an_outage_is_not_filled_with_copies_and_each_event_goes_out_once(
    producer: Producer, broker: Broker
) -> None:
    (client,) = broker.clients
    client.away = True
    for _ in range(20):
        assert not await publish(producer, "a")
        assert not await publish(producer, "b")
    assert client.given == ["a", "b"]
    client.come_back()
    await until(lambda: producer.away_since is None, "the producer notices that the broker is back")
    assert await publish(producer, "a") and await publish(producer, "b")
    assert client.sent == ["a", "b"], "what arrived meanwhile is not sent again"
    assert await publish(producer, "a")
    assert client.sent == ["a", "b", "a"], "but it may be published again later"


async def test_a_long_outage_keeps_a_bounded_number_of_events(
    producer: Producer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_producer, "MOST_SENDS", 5)
    (client,) = broker.clients
    client.away = True
    for number in range(20):
        assert not await publish(producer, str(number))
    assert len(client.given) == 5


async def test_callers_who_are_cancelled_leave_the_send_alone(producer: Producer, broker: Broker) -> None:
    (client,) = broker.clients
    client.away = True
    caller = asyncio.create_task(publish(producer, "a"))
    await until(lambda: client.given == ["a"], "it is under way")
    await cancel_and_wait(caller)
    client.come_back()
    await until(lambda: client.sent == ["a"], "it goes out")
    assert await publish(producer, "a")
    assert client.sent == ["a"]


async def test_a_missing_topic_does_not_mean_that_the_broker_is_away(producer: Producer, broker: Broker) -> None:
    """The client waits for the topic, while the broker answers."""
    (client,) = broker.clients

    async def wait_for_topic(topic: str, **record: object) -> None:
        await asyncio.Event().wait()

    client.send_and_wait = wait_for_topic  # type: ignore[method-assign]
    assert not await publish(producer, "a")
    assert producer.away_since is None


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError(),
        KafkaTimeoutError(),
        NodeNotReadyError(),
        NotEnoughReplicasError(),
        RequestTimedOutError(),
        TopicAuthorizationFailedError("job.control"),
        UnknownTopicOrPartitionError(),
        ConnectionResetError(),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_these_errors_are_transient(producer: Producer, broker: Broker, error: Exception) -> None:
    broker.clients[0].error = error
    with pytest.raises(TransientError):
        await producer.send("a", record("a"))


@pytest.mark.parametrize(
    "error",
    [
        MessageSizeTooLargeError(),
        RecordListTooLargeError(),
        RecordTooLargeError(),
        InvalidTopicError(),
        PolicyViolationError(),
        type("NewError", (BrokerResponseError,), {"errno": 4711})(),
    ],
    ids=repr,
)
async def test_any_other_answer_refuses_the_event_and_the_next_one_goes_out(
    producer: Producer, broker: Broker, error: Exception
) -> None:
    """An idempotent client numbers its records. The broker would miss the refused one, so another client follows."""
    broker.clients[0].error = error
    with pytest.raises(EventRefused):
        await producer.send("a", record("a"))
    await until(lambda: len(broker.clients) == 2, "another client connects")
    await until(lambda: publish(producer, "b"), "the next event goes out")
    assert broker.clients[1].sent == ["b"]


@pytest.mark.parametrize("error", [KafkaError("Unexpected error during batch delivery"), OutOfOrderSequenceNumber()])
async def test_a_client_that_is_spent_is_replaced(producer: Producer, broker: Broker, error: Exception) -> None:
    broker.clients[0].error = error
    assert not await publish(producer, "a")
    await until(lambda: publish(producer, "a"), "another client sends it")
    assert broker.clients[-1].sent == ["a"]


async def test_a_client_that_never_answers_again_is_replaced(
    producer: Producer, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may know only addresses that are no more."""
    monkeypatch.setattr(kafka_producer, "RENEW_SECONDS", 0.1)
    broker.clients[0].away = True
    assert not await publish(producer, "a")
    await until(lambda: publish(producer, "a"), "another client sends it")
    assert producer.away_since is None


@pytest.mark.parametrize("topic", ["", "with space", "x" * 250, "..", "é", "half \ud83d"])
async def test_a_topic_that_kafka_does_not_allow_is_refused(producer: Producer, topic: str) -> None:
    with pytest.raises(EventRefused):
        await producer.send("a", record("a", topic))


async def test_stopping_does_not_wait_for_a_broker_that_is_away(producer: Producer, broker: Broker) -> None:
    broker.clients[0].away = True
    waiting = asyncio.create_task(publish(producer, "a"))
    await until(lambda: broker.clients[0].given == ["a"], "it is under way")
    async with asyncio.timeout(5):
        await producer.stop()
    assert not await waiting
