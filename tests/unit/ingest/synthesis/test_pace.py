"""Rate limits and pauses, with a clock that moves only when somebody waits."""

from __future__ import annotations

import asyncio

from services.ingest.synthesis import pace
from services.ingest.synthesis.pace import Pace


class Time:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    async def rest(self, seconds: float) -> None:
        self.now += seconds


def limits(requests: int | None = None, tokens: int | None = None) -> tuple[Pace, Time]:
    time = Time()
    return Pace(requests, tokens, clock=time, rest=time.rest), time


async def sent(pace: Pace, time: Time, count: int, tokens: int, used: int | None = None) -> list[float]:
    """When each of `count` requests is sent; each counts `tokens` before it is answered, and `used` then."""
    times = []
    for _ in range(count):
        async with pace.turn(tokens) as ticket:
            times.append(time.now)
            ticket.tokens = tokens if used is None else used
    return times


def most_in_a_minute(times: list[float]) -> int:
    return max(sum(1 for other in times if 0 <= other - time < 60) for time in times)


async def test_no_minute_has_more_requests_than_allowed() -> None:
    times = await sent(*limits(requests=5), 23, 1)
    assert most_in_a_minute(times) == 5
    assert 4 * 60 <= times[-1] - times[0] < 5 * 60


async def test_no_minute_has_more_tokens_than_allowed() -> None:
    times = await sent(*limits(tokens=1000), 20, 250)
    assert most_in_a_minute(times) == 4


async def test_what_a_request_really_took_counts_once_it_is_known() -> None:
    times = await sent(*limits(tokens=1000), 20, 500, used=100)
    assert most_in_a_minute(times) == 6  # five take 500 of 1000, the sixth may take 500


async def test_a_request_larger_than_the_limit_goes_alone() -> None:
    times = await sent(*limits(tokens=1000), 3, 5000)
    assert most_in_a_minute(times) == 1


async def test_without_limits_nobody_waits() -> None:
    assert len(set(await sent(*limits(), 100, 10**6))) == 1


async def test_a_pause_that_the_endpoint_asks_for_is_kept_by_all() -> None:
    limited, time = limits()
    assert limited.failed(time.now, 17.0)
    assert await sent(limited, time, 2, 1) == [1017.0, 1017.0]


async def test_pauses_grow_and_end_with_the_first_answer() -> None:
    limited, time = limits()
    pauses = []
    for _ in range(8):
        begun = time.now
        limited.failed(begun, None)
        async with limited.turn(1):
            pauses.append(time.now - begun)
    longest = [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert all(limit / 2 <= pause <= limit for pause, limit in zip(pauses, longest, strict=True))
    limited.succeeded()
    begun = time.now
    limited.failed(begun, None)
    async with limited.turn(1):
        assert time.now - begun <= 1.0


async def test_failures_of_the_same_moment_count_as_one() -> None:
    limited, time = limits()
    for _ in range(50):
        limited.failed(1000.0, None)
    await sent(limited, time, 1, 1)
    assert time.now <= 1001.0


async def test_patience_ends() -> None:
    limited, time = limits()
    tries = 0
    while limited.failed(time.now, None):
        tries += 1
        async with limited.turn(1):
            pass
    assert pace.PATIENCE - 30 <= time.now - 1000.0 <= pace.PATIENCE
    assert tries < 50


async def test_while_the_endpoint_fails_one_request_at_a_time_tries_it() -> None:
    limited, time = limits()
    limited.failed(time.now, 0.0)
    under_way = most = 0

    async def ask() -> None:
        nonlocal under_way, most
        async with limited.turn(1):
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1

    await asyncio.gather(*(ask() for _ in range(10)))
    assert most == 1
    limited.succeeded()
    await asyncio.gather(*(ask() for _ in range(10)))
    assert most == 10
