"""Keeps one process ahead that has imported the libraries of a training, and does each in a fork of itself."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from services.trainer.job.process import TrainingProcess
from shared.retry import Backoff

log = logging.getLogger(__name__)

PAUSES = Backoff(10.0, 600.0)
"""Before one is started: other services start at the same time, or other stages of the job of a process that was killed
need the processors. They grow if processes end before a job comes, as where memory is short."""


class ProcessAhead:
    """At most one process, which waits for a training or does one."""

    def __init__(self, *, gpu: str | None, threads: int | None, pauses: Backoff = PAUSES) -> None:
        """`gpu` and `threads` are those of `TrainingProcess.start`."""
        self._gpu = gpu
        self._threads = threads
        self._pauses = pauses
        self._process: TrainingProcess | None = None

    @property
    def pid(self) -> int | None:
        """The process; None: there is none."""
        return self._process.pid if self._process else None

    async def take(self, plan: Path, out: Path) -> TrainingProcess | None:
        """The process, which now trains the plan in the file `plan` as after `TrainingProcess.start`. The training that
        took it before must have released it. None: there is none, or it has ended."""
        process = self._process
        return process if process is not None and await process.begin(plan, out) else None

    async def run(self) -> None:
        """Keep one process ahead, until it is cancelled. A training that is under way then is left to who took it."""
        ended = 0
        try:
            while True:
                await asyncio.sleep(self._pauses.pause(ended + 1))
                process = self._process = await TrainingProcess.start_ahead(gpu=self._gpu, threads=self._threads)
                code = await asyncio.shield(process.ended())  # a cancelled wait would leave its output unread
                ended = 0 if process.begun else ended + 1
                log.info("the training process ahead ended", extra={"code": code, "reason": process.trace})
                self._process = None
        finally:
            if self._process is not None:
                await self._process.end()  # a training writes a checkpoint meanwhile
