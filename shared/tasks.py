"""Helpers for asyncio: wait for an event or a time, cancel tasks and wait for their end, run several together, run one
beside a block."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
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


async def gather_or_cancel(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run the coroutines concurrently and return their results in order. If one fails, or the caller is cancelled, all
    are cancelled."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await cancel_and_wait(*tasks)


async def try_within(step: Callable[[], Awaitable[object]], seconds: float) -> None:
    """Await `step()` for at most `seconds`, and go on whatever becomes of it. It is for closing what is given up."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(seconds):
            await step()


class Patience:
    """Waits a while for steps of a loop. One that takes longer goes on beside the loop, so that the others do not wait
    for it. `failed` is called with what such a step raises in the end."""

    def __init__(self, seconds: float, failed: Callable[[Exception], None]) -> None:
        self._seconds = seconds
        self._failed = failed
        self._running: set[asyncio.Task[Any]] = set()

    async def wait(self, step: Coroutine[Any, Any, T], otherwise: T) -> T:
        """The result of `step`; `otherwise` if it is not there yet. If the caller is cancelled, so is the step."""
        task = asyncio.create_task(step)
        try:
            await asyncio.wait({task}, timeout=self._seconds)
        except asyncio.CancelledError:
            await cancel_and_wait(task)
            raise
        if task.done():
            return task.result()
        self._running.add(task)
        task.add_done_callback(self._ended)
        return otherwise

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failed(error)


@asynccontextmanager
async def in_background(coroutine: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run `coroutine` as a task beside the block. When the block is left, the task is cancelled and has ended."""
    task = asyncio.create_task(coroutine)
    try:
        yield task
    finally:
        await cancel_and_wait(task)
