"""The turn of one training on a GPU that vLLM and training share by turns (`gpu.share = alternate`)."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.settings import Settings
from shared.stages.gpu_turns import GpuTurns
from shared.stages.lease import Lease
from shared.stages.ledger import Ledger
from shared.stages.stage import Attempt


class _CertainTurns(GpuTurns):
    """Turns that are only taken by an attempt which is certain that it still has the job."""

    def __init__(self, ledger: Ledger, settings: Settings, certain: Callable[[], Awaitable[None]]) -> None:
        super().__init__(ledger, settings.gpu.name, lease_seconds=settings.stage.lease_seconds)
        self._certain = certain

    async def for_training(self, owner: str) -> Lease | None:
        await self._certain()
        return await super().for_training(owner)


@asynccontextmanager
async def hold(ledger: Ledger, settings: Settings, attempt: Attempt) -> AsyncIterator[None]:
    """Wait for the turn, however long that takes, and hold it while the block runs. Does nothing if training and vLLM
    split the memory, or training uses no GPU.

    Raises:
        TransientError: the ledger was away for too long, so another process may have the turn.
    """
    if settings.gpu.share == "split" or settings.trainer.gpu == "cpu":
        yield
        return
    turns = _CertainTurns(ledger, settings, attempt.certain)
    # The owner is this attempt. A later attempt must not take the turn over while this training process may still run.
    owner = f"trainer/{socket.gethostname()}/{os.getpid()}/{attempt.job.job_id}/{attempt.number}"

    async def waiting() -> None:
        await attempt.progress(message="training: waits for the GPU")

    async with turns.training(owner, settings.stage.poll_seconds, waiting):
        yield
