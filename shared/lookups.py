"""Questions to the object store that requests wait for, each for a limited time, and names that were asked for in
vain."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from shared.errors import StoreUnavailable

T = TypeVar("T")

LOOKUP_SECONDS = 3.0
"""How long a request waits for what is not known yet. A store that hangs answers after ten seconds that it does not."""
REFRESH_SECONDS = 0.5
"""How long a request waits for news of what is known. A store that is well answers within milliseconds."""
NOT_FOUND_SECONDS = 1.0
"""A name that does not exist is looked up at most once in this time, however many requests have it."""
MOST_MISSING = 1000


async def answer(task: asyncio.Task[T], seconds: float | None) -> T:
    """The answer to a question that others may wait for, too. `seconds` None: however long it takes.

    Raises:
        StoreUnavailable: it did not come within `seconds`.
    """
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        raise StoreUnavailable("the object store takes too long to answer")
    return task.result()


class Missing:
    """The names that were not found within the last `NOT_FOUND_SECONDS`; the oldest are forgotten first."""

    def __init__(self, timer: Callable[[], float]) -> None:
        self._timer = timer
        self._until: OrderedDict[str, float] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return self._timer() < self._until.get(name, float("-inf"))

    def add(self, name: str) -> None:
        self._until[name] = self._timer() + NOT_FOUND_SECONDS
        self._until.move_to_end(name)
        if len(self._until) > MOST_MISSING:
            self._until.popitem(last=False)
