"""Keeps one training process ahead, which has imported its libraries before its job comes."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from services.trainer.job.process import TrainingProcess
from shared.retry import Backoff

log = logging.getLogger(__name__)

PAUSES = Backoff(10.0, 600.0)
"""The first one is after the start of the service and after each training: others start then, or the next stages of the
job need the processors. They grow if processes end before a job comes, as where memory is short."""


class ProcessAhead:
    """At most one process that waits. While the training that took it runs, there is none."""

    def __init__(self, *, gpu: str | None, threads: int | None, pauses: Backoff = PAUSES) -> None:
        """`gpu` and `threads` are those of `TrainingProcess.start`."""
        self._gpu = gpu
        self._threads = threads
        self._pauses = pauses
        self._waiting: TrainingProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process that waits; None: there is none."""
        return self._waiting.pid if self._waiting else None

    async def take(self, plan: Path, out: Path) -> TrainingProcess | None:
        """The process that waited, which now trains the plan in the file `plan` as after `TrainingProcess.start`. None:
        there is none, or it has ended."""
        process, self._waiting = self._waiting, None
        return process if process is not None and await process.begin(plan, out) else None

    async def run(self) -> None:
        """Keep one process ahead, for as long as this service lives."""
        ended = 0
        try:
            while True:
                await asyncio.sleep(self._pauses.pause(ended + 1))
                process = self._waiting = await TrainingProcess.start_ahead(gpu=self._gpu, threads=self._threads)
                code = await asyncio.shield(process.wait())  # a cancelled wait would leave its output unread
                if self._waiting is not process:  # a training took it, and is over
                    ended = 0
                    continue
                self._waiting, ended = None, ended + 1
                log.info("the training process ahead ended", extra={"code": code, "reason": process.trace})
        finally:
            if self._waiting is not None:
                await self._waiting.kill()
