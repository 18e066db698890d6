"""Takes turns with training on one GPU (`gpu.share = alternate`).

vLLM serves while inference has the turn of the GPU. It frees the memory before the turn is given up
(`shared/stages/gpu_turns.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from services.inference.errors import VllmUnavailable
from services.inference.vllm.server import Vllm
from shared.errors import LeaseLost, StoreUnavailable, TunestreamError
from shared.stages.gpu_turns import GpuTurns
from shared.stages.lease import Lease

log = logging.getLogger(__name__)

DRAIN_SECONDS = 60.0
"""How long vLLM may go on with the requests under way before it goes to sleep. A training waits meanwhile."""
CLOSE_SECONDS = 10.0


class SleepController:
    """Wakes vLLM when inference gets the turn, and puts it to sleep when a training wants it. Before the first turn
    vLLM must be asleep or not started."""

    def __init__(
        self, vllm: Vllm, turns: GpuTurns, *, serve_seconds: float, start_timeout: float, poll_seconds: float
    ) -> None:
        """`serve_seconds`: the shortest time that vLLM serves after a training, counted from its first answer."""
        self._vllm = vllm
        self._turns = turns
        self._serve_seconds = serve_seconds
        self._start_timeout = start_timeout
        self._poll_seconds = poll_seconds
        self._lease: Lease | None = None

    async def run(self) -> None:
        """Take turns until cancelled.

        Raises:
            ConfigError: this vLLM cannot sleep.
        """
        after_training = False
        while True:
            try:
                lease = await self._turns.for_serving()
            except StoreUnavailable:
                lease = None
            if lease is None:
                after_training = True
                await self._keep_asleep()
                await asyncio.sleep(self._poll_seconds)
            else:
                await self._turn(lease, after_training)

    async def close(self) -> None:
        """Leave the GPU to a training, if vLLM frees it in time. Otherwise the turn ends when its lease expires."""
        lease, self._lease = self._lease, None
        if lease is None:
            return
        with contextlib.suppress(TimeoutError, TunestreamError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._vllm.sleep(0)
                await self._turns.release(lease)

    async def _turn(self, lease: Lease, after_training: bool) -> None:
        self._lease = lease
        try:
            async with self._turns.holding_for_serving(lease):
                if after_training or not await self._wanted():
                    await self._serve(after_training)
                log.info("vLLM goes to sleep because a training wants the GPU")
                await self._sleep(DRAIN_SECONDS)
            await self._turns.release(lease)
        except LeaseLost:
            log.warning("the turn of the GPU was lost")
            await self._sleep(0)
        except StoreUnavailable:
            # we still hold the turn, and find that out when we ask for one again
            log.warning("the turn of the GPU could not be given up")
        self._lease = None

    async def _serve(self, after_training: bool) -> None:
        """Return when a training wants the GPU; after a training, vLLM has served for `serve_seconds` by then."""
        while not await self._woken():
            await asyncio.sleep(self._poll_seconds)
        if after_training:
            with contextlib.suppress(VllmUnavailable):
                await self._vllm.wait_ready(self._start_timeout)
            await asyncio.sleep(self._serve_seconds)
        while not await self._wanted():
            await asyncio.sleep(self._poll_seconds)
            await self._woken()  # the last holder of the turn may have put a shared server to sleep

    async def _woken(self) -> bool:
        try:
            await self._vllm.wake()
        except VllmUnavailable:
            return False
        return True

    async def _sleep(self, drain: float) -> None:
        """Return when vLLM has freed the memory."""
        while True:
            try:
                await self._vllm.sleep(drain)
                return
            except VllmUnavailable as error:
                log.warning("vLLM does not go to sleep", extra={"reason": str(error)})
                await asyncio.sleep(self._poll_seconds)

    async def _keep_asleep(self) -> None:
        with contextlib.suppress(VllmUnavailable):
            await self._vllm.keep_asleep()

    async def _wanted(self) -> bool:
        try:
            return await self._turns.wanted()
        except StoreUnavailable:
            return False
