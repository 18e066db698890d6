"""Helpers for asyncio: wait for an event or a time, cancel tasks and wait for their end, run a task beside a block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def wait_for_event(event: asyncio.Event, seconds: float) -> bool:
    """Wait until `event` is set, for at most `seconds`. Returns whether it is set; the caller clears it."""
    if event.is_set():
        return True
    with contextlib.suppress(TimeoutError):
        # not wait_for: before Python 3.12 it swallows a cancellation that arrives together with the event
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()


async def cancel_and_wait(*tasks: asyncio.Future[Any]) -> list[Any]:
    """Cancel `tasks` and wait until all of them have ended. Returns the result or the exception of each."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def try_within(step: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Await `step()` for at most `seconds`, and go on whatever becomes of it. It is for closing what is given up."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(seconds):
            await step()


@asynccontextmanager
async def in_background(coroutine: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `coroutine` as a task beside the block. When the block is left, the task is cancelled and has ended."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        await cancel_and_wait(task)
