"""Work in a thread that ends when its task is cancelled, and the progress that is published meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from services.validate.domain.report import FileRole
from services.validate.scan import ScanControl
from shared.stages.stage import Attempt
from shared.tasks import in_background

T = TypeVar("T")

PROGRESS_SECONDS = 3.0


async def in_thread(call: Callable[[], T], control: ScanControl) -> T:
    """Run `call` in a thread. On cancellation, stop the thread and wait for it: it may still write into a folder that
    is about to be deleted."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        control.stop.set()
        with suppress(Exception):
            await task
        raise


@asynccontextmanager
async def publishing_progress(
    attempt: Attempt,
    what: str,
    control: ScanControl,
    clock: Callable[[], float],
    every: float = PROGRESS_SECONDS,
    first: str = "loading the tokenizer",
) -> AsyncIterator[None]:
    """Publish every few seconds how far the scan under `control` is, or that it does what comes `first`. `clock` counts
    seconds."""
    latest: tuple[FileRole, int, float] | None = None
    began: dict[FileRole, float] = {}

    def note(role: FileRole, rows: int, share: float) -> None:
        nonlocal latest
        began.setdefault(role, clock())
        latest = (role, rows, share)

    async def publish() -> None:
        while True:
            await asyncio.sleep(every)
            if latest is None:
                await attempt.progress(message=f"{what}: {first}")
                continue
            role, rows, share = latest
            left = (clock() - began[role]) * (1 - share) / share if share else None
            await attempt.progress(
                message=f"{what} the {role} file: {rows} rows, {share:.0%}",
                eta_seconds=None if left is None else round(left, 1),
                data={"rows": rows, "share": round(share, 4), "file": role},
            )

    control.on_progress = note
    async with in_background(publish()):
        yield
