"""Waiting for the object store with something in hand that took long to make."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from shared.errors import ConfigError, StoreUnavailable
from shared.retry import Backoff

T = TypeVar("T")

PAUSES = Backoff(0.5, 30.0)
"""Between two tries while the store is away."""
AWAY = (StoreUnavailable, ConfigError)
"""The store does not answer, or a key of ours is not right any more: it will be, and what was made is worth waiting."""


async def when_the_store_answers(call: Callable[[], Awaitable[T]], say: Callable[[str], Awaitable[None]]) -> T:
    """Await `call()`, and repeat it without limit while the store is away. `say` gets the first reason, in one line.

    The work of an attempt may wait so: if another attempt takes the job meanwhile, the work is cancelled.
    """
    pauses = iter(PAUSES)
    told = False
    while True:
        try:
            return await call()
        except AWAY as error:
            if not told:
                await say(str(error))
                told = True
        await asyncio.sleep(next(pauses))
