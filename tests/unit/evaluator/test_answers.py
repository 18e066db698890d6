"""Running requests concurrently: the order of results, and what ends when one fails."""

from __future__ import annotations

import asyncio

import pytest

from services.evaluator.answers import gather_or_cancel
from shared.errors import TransientError


async def test_results_come_in_the_order_of_the_work() -> None:
    turn = asyncio.Event()

    async def first() -> int:
        await turn.wait()
        return 1

    async def second() -> int:
        turn.set()
        return 2

    assert await gather_or_cancel([first(), second()]) == [1, 2]


async def test_the_first_failure_ends_all_the_others() -> None:
    ended: list[str] = []

    async def waits_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waiting")

    async def fails() -> None:
        raise TransientError("down")

    async with asyncio.timeout(5):
        with pytest.raises(TransientError):
            await gather_or_cancel([waits_for_ever(), fails()])
    assert ended == ["waiting"]
