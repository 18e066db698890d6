"""The guard around each record: what is delivered again, for how long, and what becomes a dead letter."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest

from shared.errors import ConfigError, EventRefused, InputError, StoreRefused, StoreUnavailable, TransientError
from shared.kafka import guard as kafka_guard
from shared.kafka.guard import Guard
from shared.settings import BusSettings
from tests.support.fakes.clock import Clock

HOUR = 3600.0


@dataclass(frozen=True)
class Place:
    offset: int
    topic: str = "job.control"
    partition: int = 0


class Letters:
    def __init__(self) -> None:
        self.written: list[tuple[int, str]] = []
        self.error: Exception | None = None

    async def __call__(self, record: Place, error: Exception) -> None:
        if self.error is not None:
            raise self.error
        self.written.append((record.offset, type(error).__name__))


@pytest.fixture
def letters() -> Letters:
    return Letters()


@pytest.fixture
def clock() -> Clock:
    return Clock(1000.0)


@pytest.fixture
def guard(letters: Letters, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Guard:
    monkeypatch.setattr(kafka_guard, "QUICK_PAUSES", (0.0, 0.0))
    return Guard(BusSettings(redelivery_hours=24), letters, clock)


class Failing:
    """A handler that always raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.calls = 0

    async def __call__(self) -> None:
        self.calls += 1
        raise self.error


async def fine() -> None:
    pass


@pytest.mark.parametrize("error", [StoreUnavailable("away"), ConfigError("a rotated key"), TransientError("busy")])
async def test_what_is_not_the_messages_fault_is_delivered_again_for_a_day(
    guard: Guard, letters: Letters, clock: Clock, error: Exception
) -> None:
    work = Failing(error)
    for _ in range(24):
        assert not await guard.handle(Place(7), work)
        clock.now += HOUR - 1
    assert letters.written == []
    clock.now += HOUR
    assert await guard.handle(Place(7), work)
    assert letters.written == [(7, type(error).__name__)]


async def test_an_outage_of_a_day_does_not_empty_the_topic(guard: Guard, letters: Letters, clock: Clock) -> None:
    """The time counts from when a message was first tried, not from when it was sent."""
    work = Failing(StoreUnavailable("away"))
    assert not await guard.handle(Place(7), work)
    clock.now += 25 * HOUR
    assert await guard.handle(Place(7), work)
    assert not await guard.handle(Place(8), work)
    assert await guard.handle(Place(8), fine)
    assert letters.written == [(7, "StoreUnavailable")]


@pytest.mark.parametrize(
    "error",
    [
        StoreRefused("KeyTooLongError", "the key is too long"),
        EventRefused("too large"),
        InputError("invalid_job", "wrong"),
        KeyError("a bug"),
        RecursionError(),
        MemoryError(),
        TimeoutError(),
    ],
    ids=repr,
)
async def test_anything_else_is_a_dead_letter_at_once(guard: Guard, letters: Letters, error: Exception) -> None:
    work = Failing(error)
    assert await guard.handle(Place(7), work)
    assert (work.calls, letters.written) == (1, [(7, type(error).__name__)])


async def test_quick_tries_come_first_and_only_once(guard: Guard) -> None:
    work = Failing(TransientError("away"))
    await guard.handle(Place(7), work)
    assert work.calls == 3
    await guard.handle(Place(7), work)
    assert work.calls == 4


async def test_a_handler_that_hangs_or_is_cancelled_inside_ends_no_consumer(
    guard: Guard, letters: Letters, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await guard.handle(Place(7), Failing(asyncio.CancelledError()))
    monkeypatch.setattr(kafka_guard, "HANDLER_SECONDS", 0.01)

    async def hang() -> None:
        await asyncio.Event().wait()

    assert not await guard.handle(Place(7), hang)
    assert await guard.handle(Place(7), fine)
    assert letters.written == []


async def test_a_service_that_stops_interrupts_its_handler(guard: Guard) -> None:
    began = asyncio.Event()

    async def hang() -> None:
        began.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(guard.handle(Place(7), hang))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("error", [TransientError("the bus is away"), KeyError("a bug")])
async def test_while_the_dead_letter_cannot_be_written_the_message_comes_again(
    guard: Guard, letters: Letters, error: Exception
) -> None:
    letters.error = error
    assert not await guard.handle(Place(7), Failing(KeyError("a bug")))
    letters.error = None
    assert await guard.handle(Place(7), Failing(KeyError("a bug")))
    assert letters.written == [(7, "KeyError")]
