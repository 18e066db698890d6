"""Back-off and retry: how long is waited, how often is tried, and what is raised in the end."""

from __future__ import annotations

from itertools import islice

import pytest

from shared.errors import InputError, TransientError
from shared.retry import Backoff, retry


def test_pauses_double_up_to_the_longest_and_differ_between_those_who_wait() -> None:
    longest = [0.5, 1.0, 2.0, 3.0, 3.0]
    assert [Backoff(0.5, 3.0).pause(failures) for failures in range(1, 6)] == longest
    for pause, most in zip(islice(Backoff(0.5, 3.0), 5), longest, strict=True):
        assert most / 2 <= pause <= most
    assert len({Backoff(0.5, 3.0).jittered(1) for _ in range(10)}) > 1


def test_an_outage_of_days_does_not_overflow() -> None:
    assert Backoff(0.2, 30.0).pause(100_000) == 30.0


class Call:
    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.count = 0

    async def __call__(self) -> str:
        self.count += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


async def test_a_call_is_tried_again_until_it_succeeds() -> None:
    call = Call(TransientError(), TransientError())
    assert await retry(call, on=TransientError, pauses=Backoff(0, 0)) == "done"
    assert call.count == 3


async def test_when_the_pauses_are_used_up_the_last_error_is_raised() -> None:
    call = Call(TransientError("1"), TransientError("2"), TransientError("3"), TransientError("4"))
    with pytest.raises(TransientError, match="3"):
        await retry(call, on=TransientError, pauses=(0, 0))


async def test_another_error_is_raised_at_once() -> None:
    call = Call(InputError("code", "message"))
    with pytest.raises(InputError):
        await retry(call, on=TransientError, pauses=(0, 0))
    assert call.count == 1
