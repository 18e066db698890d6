"""Back-off and retry: how long to wait after a failure, and how often to try.

These are two small pieces instead of a library, because most callers decide something of their own between two tries:
whether waiting can help at all, or how long the server asked them to wait. A stage counts its failures in its claim,
where the count outlives the process. Pauses are random between half of the back-off and all of it: otherwise everybody
who met one outage would come back at the same moment.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off: `first` seconds, doubled after each failure, at most `longest` seconds.

    Iterating gives one jittered pause per failure, without end.
    """

    first: float
    longest: float

    def pause(self, failures: int) -> float:
        """The longest wait, in seconds, after `failures` failures in a row; `failures` is 1 or more."""
        doublings = min(failures - 1, 60)  # an outage of days must not overflow a float
        return min(self.first * 2.0**doublings, self.longest)

    def jittered(self, failures: int) -> float:
        """Seconds to wait: between half of `pause` and all of it."""
        return self.pause(failures) * random.uniform(0.5, 1.0)

    def __iter__(self) -> Iterator[float]:
        return map(self.jittered, itertools.count(1))


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: type[Exception],
    pauses: Iterable[float],
    failed: Callable[[], None] = lambda: None,
) -> T:
    """Await `call()`, and repeat it while it raises `on`. After each failure it waits for the next of `pauses`
    (seconds).

    `failed` is called after each failure that is followed by another try. When the pauses are used up, the exception
    of the last try is raised. Any other exception is raised at once.
    """
    waits = iter(pauses)
    while True:
        try:
            return await call()
        except on:
            pause = next(waits, None)
            if pause is None:
                raise
            failed()
        await asyncio.sleep(pause)
