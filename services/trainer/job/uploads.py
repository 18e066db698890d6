"""The upload of an attempt's checkpoints, beside its training and after it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from services.trainer.engine.messages import CheckpointWritten
from services.trainer.job.found import Clock
from shared.errors import StoreRefused
from shared.events import FolderReference
from shared.stages.stage import Attempt
from shared.store import patience
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait

log = logging.getLogger(__name__)

GRACE_SECONDS = 20.0
"""When the service stops, writing and uploading a last checkpoint may take this long."""


class CheckpointUploads:
    """Uploads checkpoints one at a time, in the order in which they were written. So whoever continues from a clock
    checkpoint finds all listed ones before it.

    Of the clock checkpoints that wait, only the newest is kept; the listed ones all wait. What is uploaded is removed
    from the disk. Of the clock checkpoints in the store, the newest `keep` of the job stay, and the others are buried.

    An async context manager. Leaving the block waits until all is uploaded, for as long as that takes; if it was
    cancelled because the service stops, for the rest of the grace period; if nobody wants the attempt any more, not at
    all.
    """

    def __init__(
        self, objects: ObjectStore, attempt: Attempt, out: Path, keep: int, earlier: Sequence[Clock] = ()
    ) -> None:
        """`earlier`: the clock checkpoints of earlier attempts at the job, the best last."""
        self.listed: dict[int, FolderReference] = {}
        """Those that are in the store, by step."""
        self._objects = objects
        self._attempt = attempt
        self._out = out
        self._keep = max(keep, 1)
        self._stored = list(earlier)
        """Clock checkpoints in the store that are not buried, the best last."""
        self._waiting: list[CheckpointWritten] = []
        """In the order in which they were written."""
        self._uploading: CheckpointWritten | None = None
        self._bell = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failures = 0
        """How often the store was away in a row."""
        self._away = ""
        """Why the last try failed."""
        self._over = self._said = False
        """The training is over; the job has said what it waits for."""
        self._completed = False
        """The training has its result, so its state is needed only if the service stops before it is uploaded."""
        self._deadline: float | None = None
        self._worker: asyncio.Task[None] | None = None

    def add(self, checkpoint: CheckpointWritten) -> None:
        """Upload `checkpoint` as soon as possible."""
        self._waiting.append(checkpoint)
        self._drop_superseded()
        self._ring()

    def deadline(self) -> float:
        """When the service must have stopped, by the loop's clock. The first call begins the grace period."""
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().time() + GRACE_SECONDS
        return self._deadline

    async def complete(self) -> None:
        """The training has its result: wait until what is listed is uploaded. The state waits on the disk: it is
        several times as large as the result, which makes it needless."""
        assert self._worker is not None
        self._completed = True
        if self._uploading is not None and not self._uploading.listed:
            await cancel_and_wait(self._worker)
            self._worker = asyncio.create_task(self._work())
        self._ring()
        await self._drain()

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        try:
            if error is None:
                return
            self._completed = False  # the next attempt continues from the state
            self._ring()
            if not isinstance(error, asyncio.CancelledError):
                await self._drain()
            elif not self._attempt.abandoned:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(self.deadline()):
                        await self._idle.wait()
        finally:
            await cancel_and_wait(self._worker)

    # --- the queue ------------------------------------------------------------------------------------------------

    def _ring(self) -> None:
        self._idle.clear()
        self._bell.set()

    async def _drain(self) -> None:
        self._over = True
        if self._failures:
            await self._say_why()
        await self._idle.wait()

    async def _work(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            while (checkpoint := self._next()) is not None:
                await self._try(checkpoint)
            if not self._bell.is_set():
                self._idle.set()

    def _next(self) -> CheckpointWritten | None:
        self._drop_superseded()
        return next((each for each in self._waiting if each.listed or not self._completed), None)

    def _drop_superseded(self) -> None:
        """Only the newest clock checkpoint is worth an upload; one that is under way goes on."""
        clocks = [each for each in self._waiting if not each.listed]
        for old in clocks[:-1]:
            if old is not self._uploading:
                self._remove(old)

    def _remove(self, checkpoint: CheckpointWritten) -> None:
        self._waiting.remove(checkpoint)
        shutil.rmtree(self._out / checkpoint.path, ignore_errors=True)

    # --- one checkpoint -------------------------------------------------------------------------------------------

    async def _try(self, checkpoint: CheckpointWritten) -> None:
        self._uploading = checkpoint
        try:
            await self._upload(checkpoint)
        except patience.AWAY as error:
            self._uploading = None
            self._failures += 1
            self._away = str(error)
            if self._over:
                await self._say_why()
            if self._failures == 1:
                log.warning("checkpoints wait", extra={"step": checkpoint.step, "reason": type(error).__name__})
            await asyncio.sleep(patience.PAUSES.jittered(self._failures))
            return
        except Exception as error:  # a failed upload must not end a training that may have run for hours
            log.warning("checkpoint not uploaded", extra={"step": checkpoint.step, "reason": type(error).__name__})
        finally:
            self._uploading = None
        self._failures = 0
        self._remove(checkpoint)

    async def _upload(self, checkpoint: CheckpointWritten) -> None:
        step, path = checkpoint.step, self._out / checkpoint.path
        prefix = f"{self._attempt.prefix}{checkpoint.path}/"
        folder = await self._objects.upload_folder(prefix, path)
        if checkpoint.listed:
            self.listed[step] = folder
            losses = checkpoint.model_dump(include={"train_loss", "valid_loss"}, exclude_none=True)
            data = {"prefix": prefix, **losses}
            await self._attempt.progress("checkpoint", f"checkpoint at step {step}", step=step, data=data)
        else:
            self._stored.append(Clock(step, self._attempt.number, self._attempt.job.job_id))
            await self._bury_superseded()

    async def _bury_superseded(self) -> None:
        """Bury what is left behind. What cannot be buried now is tried again after the next upload; in the end the
        janitor deletes what a completed training left."""
        await self._attempt.certain()  # a successor may be continuing from one of them
        newest = self._stored[-1]
        try:
            for old in self._stored[: -self._keep]:
                await old.bury(self._objects, f"the state of step {newest.step}, attempt {newest.attempt}, is newer")
                self._stored.remove(old)
        except (*patience.AWAY, StoreRefused) as error:
            log.warning("superseded checkpoints stay for now", extra={"reason": str(error)})

    async def _say_why(self) -> None:
        if not self._said:
            self._said = True
            message = f"the training is over, and its checkpoints wait to be uploaded: {self._away}"
            await self._attempt.progress("waiting", message)
