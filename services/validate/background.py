"""Work in a thread that ends when its task is cancelled, and the progress it reports meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from services.validate.domain.report import Role
from services.validate.scan import Watch
from shared.stage import Attempt
from shared.tasks import in_background

T = TypeVar("T")

PROGRESS_SECONDS = 3.0


async def in_thread(call: Callable[[], T], watch: Watch) -> T:
    """Run `call` in a thread. On cancellation the thread is told to stop and waited for: it may still be writing into a
    folder that is about to be deleted."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        watch.stop.set()
        with suppress(Exception):
            await task
        raise


@asynccontextmanager
async def reporting(
    attempt: Attempt, what: str, watch: Watch, clock: Callable[[], float], every: float = PROGRESS_SECONDS
) -> AsyncIterator[None]:
    """Publish every few seconds how far `watch` was told to be. Times by `clock`, in seconds."""
    latest: tuple[Role, int, float] | None = None
    began: dict[Role, float] = {}

    def tell(role: Role, rows: int, share: float) -> None:
        nonlocal latest
        began.setdefault(role, clock())
        latest = (role, rows, share)

    async def publish() -> None:
        while True:
            await asyncio.sleep(every)
            if latest is None:
                await attempt.progress(message=f"{what}: loading the tokenizer")
                continue
            role, rows, share = latest
            left = (clock() - began[role]) * (1 - share) / share if share else None
            await attempt.progress(
                message=f"{what} the {role} file: {rows} rows, {share:.0%}",
                eta_seconds=None if left is None else round(left, 1),
                data={"rows": rows, "share": round(share, 4), "file": role},
            )

    watch.tell = tell
    async with in_background(publish()):
        yield
