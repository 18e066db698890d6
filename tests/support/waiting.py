"""Waits, up to a limit, for something that happens in another task or process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def eventually(call: Callable[[], Awaitable[object]], errors: type[Exception], seconds: float = 30.0) -> None:
    """Repeat `call` until it raises none of `errors`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        try:
            await call()
            return
        except errors:
            if asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.1)


async def until(condition: Callable[[], object], what: str, seconds: float = 30.0) -> None:
    """Wait until `condition` returns something true, or an awaitable of that. The error names `what` was waited for."""
    deadline = asyncio.get_running_loop().time() + seconds
    while True:
        answer = condition()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s: {what}"
        await asyncio.sleep(0.01)
