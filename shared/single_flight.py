"""Work that many requests wait for together, done once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """At most one piece of work is under way for a name. It goes on when those who wait for it have gone: what it leads
    to is for the next ones."""

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[T]] = {}

    def __iter__(self) -> Iterator[str]:
        """The names for which work is under way."""
        return iter(self._under_way)

    def get(self, name: str) -> asyncio.Task[T] | None:
        """The work that is under way for `name`."""
        return self._under_way.get(name)

    def begin(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The work that is under way for `name`, or else this one."""
        if (task := self._under_way.get(name)) is None:

            async def run() -> T:
                try:
                    return await work()
                finally:
                    # not in a callback: until it ran, a request would find the ended task and start no other
                    del self._under_way[name]

            task = self._under_way[name] = asyncio.create_task(run())
            # marks the exception as retrieved, because nobody may be waiting any more
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task
