"""Trying again: how long to wait, and for how long.

Two small pieces instead of a library: most callers decide something of their own between two tries (is the cause one
that waiting mends, did the server name a time), and the counts of a stage's failures outlive the process in its claim.
Pauses have no jitter, so that the simulation in `tests/sim` can repeat a history.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off: `first` seconds, doubled after each failure, at most `longest` seconds.

    Iterating gives one pause per failure, without end.
    """

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """Seconds to wait after so many failures in a row; `failures` is 1 or more."""
        doublings = min(failures - 1, 60)  # an outage of days must not overflow a float
        return min(self.first * 2.0**doublings, self.longest)

    def __iter__(self) -> Iterator[float]:
        return map(self.pause, itertools.count(1))


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: type[Exception],
    pauses: Iterable[float],
    failed: Callable[[], None] = lambda: None,
) -> T:
    """Await `call()` until it raises no `on`, with one of `pauses` (seconds) after each failure.

    `failed` is called after each failure that is tried again. When the pauses are used up, the last try's exception
    is raised; any other exception is raised at once.
    """
    for pause in pauses:
        try:
            return await call()
        except on:
            failed()
        await asyncio.sleep(pause)
    return await call()
