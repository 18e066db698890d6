"""Waiting for an event or a time, and ending tasks."""

from __future__ import annotations

import asyncio

import pytest

from shared.tasks import cancel_and_wait, in_background, wait_for_event


async def test_waiting_for_an_event_tells_whether_it_is_set() -> None:
    event = asyncio.Event()
    assert not await wait_for_event(event, 0.001)
    event.set()
    assert await wait_for_event(event, 0)


async def test_cancelled_tasks_have_ended_and_their_outcomes_are_returned() -> None:
    async def fail() -> None:
        raise ValueError

    failed, asleep = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60))
    await asyncio.sleep(0)
    outcomes = await cancel_and_wait(failed, asleep)
    assert [type(outcome) for outcome in outcomes] == [ValueError, asyncio.CancelledError]


async def test_a_background_task_ends_with_its_block_also_when_the_block_fails() -> None:
    with pytest.raises(ValueError, match="of the block"):
        async with in_background(asyncio.sleep(60)) as task:
            raise ValueError("of the block")
    assert task.cancelled()
