"""The GPU for one training, where vLLM and training use it by turns (`gpu.share = alternate`)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from shared.gpu import GpuTurns
from shared.ledger import Ledger
from shared.settings import Settings
from shared.stage import Attempt


def turn(
    ledger: Ledger, settings: Settings, clock: Callable[[], float], attempt: Attempt
) -> AbstractAsyncContextManager[None]:
    """Enter to wait for the GPU, however long; it is ours until the block is left. Nothing to wait for where memory is
    split, or training runs without a GPU.

    Raises:
        TransientError: the ledger was away for too long, and the GPU may be somebody else's.
    """
    if settings.gpu.share == "split" or settings.trainer.gpu == "cpu":
        return nullcontext()
    turns = GpuTurns(ledger, settings.gpu.name, clock, lease_seconds=settings.stage.lease_seconds)
    # of this attempt alone: a successor must not take the turn over from a training process that may still live
    owner = f"trainer/{socket.gethostname()}/{os.getpid()}/{attempt.job.job_id}/{attempt.number}"

    async def waiting() -> None:
        await attempt.progress(message="training: waits for the GPU")

    return turns.training(owner, settings.stage.poll_seconds, waiting)
