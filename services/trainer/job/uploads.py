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
from shared.store import patience
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
    for attempt in await _written(objects, attempts):
        for name in await objects.folders(f"{attempt}checkpoints/"):
            step = int(name.removeprefix("step-"))
            if step in found:
                continue
            if folder := await find_folder(objects, objects.bucket, f"{attempt}checkpoints/{name}/"):
                found[step] = folder
    return found


async def _written(objects: ObjectStore, attempts: Sequence[str]) -> list[str]:
    """Those of `attempts` that have written something. A job that waited for long has hundreds that have not."""
    stages = dict.fromkeys(attempt[: attempt.rindex("attempt-")] for attempt in attempts)
    written = {f"{stage}{name}/" for stage in stages for name in await objects.folders(f"{stage}attempt-")}
    return [attempt for attempt in attempts if attempt in written]


class CheckpointUploads:
    """Uploads checkpoints while the training goes on, one at a time. While the store is away they wait: then the newest
    goes first, because the next attempt would continue from it, and at most `keep` of them stay on the disk.

    An async context manager: leaving the block waits for all uploads; if the block was cancelled, it does not. It may
    be entered again.
    """

    def __init__(self, objects: ObjectStore, attempt: Attempt, out: Path, keep: int) -> None:
        self.done: dict[int, FolderReference] = {}
        self._objects = objects
        self._attempt = attempt
        self._out = out
        self._keep = max(keep, 1)
        self._waiting: list[CheckpointWritten] = []
        """In the order in which they were written."""
        self._bell = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failures = 0
        """How often the store was away in a row."""
        self._away = ""
        """Why the last try failed."""
        self._over = self._said = False
        """The training is over; the job has said what it waits for."""
        self._worker: asyncio.Task[None] | None = None

    def add(self, checkpoint: CheckpointWritten) -> None:
        """Upload `checkpoint` as soon as possible."""
        self._waiting.append(checkpoint)
        self._idle.clear()
        self._bell.set()

    async def __aenter__(self) -> Self:
        if self._waiting:
            self._bell.set()
        self._over = False
        self._worker = asyncio.create_task(self._work())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._worker is not None
        try:
            if not isinstance(error, asyncio.CancelledError):
                self._over = True
                if self._failures:
                    await self._say_why()
                await self._idle.wait()
        finally:
            await cancel_and_wait(self._worker)

    async def _work(self) -> None:
        while True:
            await self._bell.wait()
            self._bell.clear()
            while self._waiting:
                await self._next()
            self._idle.set()

    async def _next(self) -> None:
        checkpoint = self._waiting[-1 if self._failures else 0]
        try:
            await self._upload(checkpoint)
        except patience.AWAY as error:
            self._failures += 1
            self._away = str(error)
            if self._over:
                await self._say_why()
            if self._failures == 1:
                log.warning("checkpoints wait", extra={"step": checkpoint.step, "reason": type(error).__name__})
            for old in self._waiting[: -self._keep]:
                log.warning("checkpoint not uploaded", extra={"step": old.step, "reason": type(error).__name__})
                shutil.rmtree(self._out / old.path, ignore_errors=True)
            del self._waiting[: -self._keep]
            await asyncio.sleep(patience.PAUSES.jittered(self._failures))
            return
        except Exception as error:  # a failed upload must not end a training that may have run for hours
            log.warning("checkpoint not uploaded", extra={"step": checkpoint.step, "reason": type(error).__name__})
        self._failures = 0
        self._waiting.remove(checkpoint)

    async def _say_why(self) -> None:
        if not self._said:
            self._said = True
            message = f"the training is over, and its checkpoints wait to be uploaded: {self._away}"
            await self._attempt.progress("waiting", message)

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
