"""The turn of one training on a GPU that vLLM and training share by turns (`gpu.share = alternate`)."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext

from shared.settings import Settings
from shared.stages.gpu_turns import GpuTurns
from shared.stages.ledger import Ledger
from shared.stages.stage import Attempt


def hold(
    ledger: Ledger, settings: Settings, clock: Callable[[], float], attempt: Attempt
) -> AbstractAsyncContextManager[None]:
    """Wait for the turn, however long that takes, and hold it while the block runs. Does nothing if training and vLLM
    split the memory, or training uses no GPU.

    Raises:
        TransientError: the ledger was away for too long, so another process may have the turn.
    """
    if settings.gpu.share == "split" or settings.trainer.gpu == "cpu":
        return nullcontext()
    turns = GpuTurns(ledger, settings.gpu.name, lease_seconds=settings.stage.lease_seconds)
    # The owner is this attempt. A later attempt must not take the turn over while this training process may still run.
    owner = f"trainer/{socket.gethostname()}/{os.getpid()}/{attempt.job.job_id}/{attempt.number}"

    async def waiting() -> None:
        await attempt.progress(message="training: waits for the GPU")

    return turns.training(owner, settings.stage.poll_seconds, waiting)
