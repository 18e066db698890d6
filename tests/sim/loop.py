"""An asyncio event loop with virtual time, in which whole processes stop: it never waits, but jumps to the next timer.

Runs are deterministic. Every task belongs to the process whose context it was made in. While a process is paused, its
callbacks and timers are held back, and run when it goes on; a dead process has no further effects at all. What belongs
to no process (the network, the disk, the users) goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(AssertionError):
    """Every task waits, and no timer is set."""


class Stoppable:
    """What the loop knows of a process: whether it runs, and what waits until it does."""

    def __init__(self) -> None:
        self.stopped = False
        self.held: list[asyncio.Handle] = []
        """They are kept for a dead process, too: the garbage collector would run the `finally` blocks of its tasks."""
        self.context = Context()
        self.context.run(PROCESS.set, self)


PROCESS: ContextVar[Stoppable | None] = ContextVar("process", default=None)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Three methods of asyncio's loop are replaced, also for speed: most of a simulation is timers."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        super().__init__()

    def time(self) -> float:
        return self.now

    def call_at(
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._numbers), handle))
        return handle

    def resume(self, process: Stoppable) -> None:
        process.stopped = False
        self._ready.extend(process.held)
        process.held = []

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass  # a cancelled timer is dropped when its time comes

    def _run_once(self) -> None:
        ready, timers = self._ready, self._timers
        if not ready:
            while timers and timers[0][2]._cancelled:
                heapq.heappop(timers)
            if not timers:
                raise Deadlock
            self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            handle = heapq.heappop(timers)[2]
            if not handle._cancelled:
                ready.append(handle)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and process.stopped:
                process.held.append(handle)
            else:
                handle._run()


def run(main: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def here() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop
