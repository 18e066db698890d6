"""How many requests and tokens a key may use."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access.rate_limits import RateLimiter, duration
from shared.events import KeyLimits


def limiter(requests: int | None = None, tokens: int | None = None) -> RateLimiter:
    return RateLimiter(KeyLimits(requests_per_minute=requests, tokens_per_minute=tokens), 0.0)


def headers(limiter: RateLimiter, at: float) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in limiter.headers(at)}


def test_a_minutes_worth_may_come_at_once_and_then_as_many_as_time_brings() -> None:
    of_60 = limiter(60)
    assert [of_60.take(0.0, generation=False) for _ in range(60)] == [None] * 60
    exceeded = of_60.take(0.0, generation=False)
    assert exceeded is not None
    assert (exceeded.of, exceeded.limit, exceeded.seconds) == ("requests", 60, pytest.approx(1.0))
    assert of_60.take(0.9, generation=False) is not None
    assert of_60.take(1.01, generation=False) is None
    assert of_60.take(1.01, generation=False) is not None


@given(st.integers(1, 1000), st.lists(st.floats(0, 2), max_size=200))
def test_no_span_of_time_has_more_requests_than_the_limit_and_what_that_time_brings(
    per_minute: int, pauses: list[float]
) -> None:
    limited, now, passed = limiter(per_minute), 0.0, 0
    for pause in pauses:
        now += pause
        exceeded = limited.take(now, generation=False)
        passed += exceeded is None
        assert passed <= per_minute * (1 + now / 60) + 1e-6
        if exceeded is not None:
            assert limited.take(now + exceeded.seconds + 1e-6, generation=False) is None, "it said when to come back"
            now += exceeded.seconds + 1e-6
            passed += 1


def test_tokens_are_counted_after_a_generation_and_hold_up_the_next() -> None:
    limited = limiter(tokens=600)
    assert limited.take(0.0, generation=True) is None
    limited.spend(1200, 0.0)
    exceeded = limited.take(0.0, generation=True)
    assert exceeded is not None
    assert (exceeded.of, exceeded.limit, exceeded.seconds) == ("tokens", 600, pytest.approx(60.1))
    assert limited.take(0.0, generation=False) is None, "only generations use tokens"
    assert limited.take(61.0, generation=True) is None


def test_a_generation_that_lacks_tokens_uses_up_no_request() -> None:
    limited = limiter(1, 1)
    limited.spend(1, 0.0)
    assert getattr(limited.take(0.0, generation=True), "of", None) == "tokens"
    assert limited.take(0.0, generation=False) is None


def test_headers_are_those_of_openai() -> None:
    limited = limiter(60, 6000)
    limited.take(0.0, generation=True)
    limited.spend(6100, 0.0)
    assert headers(limited, 0.0) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "6000",
        "x-ratelimit-remaining-tokens": "0",
        "x-ratelimit-reset-tokens": "1m1s",
    }
    assert headers(limiter(), 0.0) == {}


def test_a_clock_that_stands_still_or_goes_back_brings_nothing() -> None:
    limited = limiter(1)
    assert limited.take(10.0, generation=False) is None
    assert limited.take(5.0, generation=False) is not None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0ms"), (0.0004, "1ms"), (0.12, "120ms"), (1.5, "1.5s"), (59.9999, "1m0s"), (60, "1m0s"), (3661, "1h1m1s")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
