"""Checkpoints in the object store: an attempt uploads them while its training runs, and the next attempt finds them."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from services.trainer.engine.messages import CheckpointWritten
from shared.events import FolderReference
from shared.stages.stage import Attempt
from shared.store.folders import find_folder
from shared.store.objects import ObjectStore
from shared.tasks import cancel_and_wait

log = logging.getLogger(__name__)


async def find_checkpoints(objects: ObjectStore, attempts: Sequence[str]) -> dict[int, FolderReference]:
    """The complete checkpoints of earlier attempts, by step.

    `attempts`: their prefixes, newest first. If two attempts have a checkpoint of the same step, that of the newer
    attempt is used.
    """
    found: dict[int, FolderReference] = {}
    for attempt in attempts:
        for name in await objects.folders(f"{attempt}checkpoints/"):
            step = int(name.removeprefix("step-"))
            if step in found:
                continue
            if folder := await find_folder(objects, objects.bucket, f"{attempt}checkpoints/{name}/"):
                found[step] = folder
    return found


class CheckpointUploads:
    """Uploads checkpoints while the training goes on, one at a time. A failed upload is logged and not tried again.

    An async context manager: leaving the block waits for all uploads; if the block was cancelled, the remaining ones
    are dropped. It may be entered again.
    """

    def __init__(self, objects: ObjectStore, attempt: Attempt, out: Path, keep: int) -> None:
        self.done: dict[int, FolderReference] = {}
        self._objects = objects
        self._attempt = attempt
        self._out = out
        self._keep = keep
        self._queue: asyncio.Queue[CheckpointWritten] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def add(self, checkpoint: CheckpointWritten) -> None:
        """Upload `checkpoint` after those that were added before."""
        self._queue.put_nowait(checkpoint)

    async def __aenter__(self) -> Self:
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        try:
            if not isinstance(error, asyncio.CancelledError):
                await self._queue.join()
        finally:
            await cancel_and_wait(self._worker)

    async def _work(self) -> None:
        while True:
            checkpoint = await self._queue.get()
            try:
                await self._upload(checkpoint)
            except Exception as error:  # a failed upload must not end a training that may have run for hours
                log.warning("checkpoint not uploaded", extra={"step": checkpoint.step, "reason": type(error).__name__})
            finally:
                self._queue.task_done()

    async def _upload(self, checkpoint: CheckpointWritten) -> None:
        step = checkpoint.step
        path = self._out / checkpoint.path
        prefix = f"{self._attempt.prefix}checkpoints/{path.name}/"
        self.done[step] = await self._objects.upload_folder(prefix, path)
        losses = checkpoint.model_dump(include={"train_loss", "valid_loss"}, exclude_none=True)
        await self._attempt.progress(
            "checkpoint", f"checkpoint at step {step}", step=step, data={"prefix": prefix, **losses}
        )
        for old in sorted(self.done)[: -self._keep]:
            shutil.rmtree(self._out / "checkpoints" / f"step-{old}", ignore_errors=True)
