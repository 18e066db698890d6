"""Checkpoints in the object store: brought there as they are made, and found again by the next attempt."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shared.events import FolderReference, Reference
from shared.objects import ObjectStore
from shared.stage import Attempt
from shared.tasks import cancel_and_wait

log = logging.getLogger(__name__)

MANIFEST = "manifest.json"  # `upload_folder` writes it last, so where it is, all is


async def find_checkpoints(objects: ObjectStore, attempts: Sequence[str]) -> dict[int, FolderReference]:
    """The complete checkpoints below the prefixes of earlier attempts (newest first), by step; of two of one step
    the newer attempt's."""
    found: dict[int, FolderReference] = {}
    for attempt in attempts:
        for name in await objects.folders(f"{attempt}checkpoints/"):
            step = int(name.removeprefix("step-"))
            prefix = f"{attempt}checkpoints/{name}/"
            manifest = await objects.get(f"{prefix}{MANIFEST}")
            if manifest is None or step in found:
                continue
            data, etag = manifest
            digest = hashlib.sha256(data).hexdigest()
            reference = Reference(
                bucket=objects.bucket, key=f"{prefix}{MANIFEST}", etag=etag, size=len(data), sha256=digest
            )
            found[step] = FolderReference(bucket=objects.bucket, prefix=prefix, manifest=reference)
    return found


class CheckpointUploads:
    """Uploads beside the training, one at a time; a failed one is only a checkpoint less.

    Used as `async with`: on leaving, what was added has been uploaded (or, cancelled, the rest is let go). May be
    entered again.
    """

    def __init__(self, objects: ObjectStore, attempt: Attempt, out: Path, keep: int) -> None:
        self.done: dict[int, FolderReference] = {}
        self._objects = objects
        self._attempt = attempt
        self._out = out
        self._keep = keep
        self._queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None

    def add(self, checkpoint: dict[str, Any]) -> None:
        """`checkpoint`: the process's event: step, path (relative to its folder), losses."""
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
            except Exception as error:  # whatever it was, it must not stop a training that may have run for hours
                log.warning(
                    "checkpoint not uploaded", extra={"step": checkpoint["step"], "reason": type(error).__name__}
                )
            finally:
                self._queue.task_done()

    async def _upload(self, checkpoint: dict[str, Any]) -> None:
        step = checkpoint["step"]
        path = self._out / checkpoint["path"]
        prefix = f"{self._attempt.prefix}checkpoints/{path.name}/"
        self.done[step] = await self._objects.upload_folder(prefix, path)
        losses = {key: checkpoint[key] for key in ("train_loss", "valid_loss") if checkpoint.get(key) is not None}
        await self._attempt.progress(
            "checkpoint", f"checkpoint at step {step}", step=step, data={"prefix": prefix, **losses}
        )
        for old in sorted(self.done)[: -self._keep]:
            shutil.rmtree(self._out / "checkpoints" / f"step-{old}", ignore_errors=True)
