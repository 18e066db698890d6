"""Turns of a GPU that vLLM and training use alternately (`gpu.share = alternate`).

    gpu/{name}/turn.json     lease: who may fill the GPU's memory now, vLLM (`inference`) or a trainer
    gpu/{name}/wanted.json   lease: a trainer is waiting for its turn

Inference has the turn whenever no trainer wants it. It gives up the turn only after vLLM has released the memory, and
gets it back after every training: otherwise a queue of trainings would keep the endpoint from the evaluation of the
model that was just trained. An owner that dies loses the turn when its lease expires.

This module knows only a ledger and a clock. Each method but `training` looks once; the caller repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.errors import LeaseLost, StoreUnavailable, TransientError
from shared.events import Claim
from shared.stages.lease import Lease
from shared.stages.ledger import Ledger, gpu_prefix

INFERENCE = "inference"
"""The owner of a serving turn: one name for all processes, so that after a crash the turn is taken up again at once.
Therefore there is one inference service per GPU."""
SERVING_SECONDS = 300.0
"""How long a serving turn is valid. It is long, because a vLLM that is not our child keeps its memory when its gateway
dies. A restarted gateway is back much sooner, and only then can the memory be released for a training."""
FIRST_RIGHT_SECONDS = 30.0
"""How long after a training only inference may take the turn; afterwards inference counts as absent."""


class GpuTurns:
    """The turns of one GPU. Every method raises `StoreUnavailable` when the ledger is away."""

    def __init__(self, ledger: Ledger, name: str, clock: Callable[[], float], *, lease_seconds: float) -> None:
        """`name`: of the GPU, unique in the ledger. `lease_seconds`: how long a trainer's turn, and its wish for one,
        are valid without renewal."""
        self._ledger = ledger
        self._turn = f"{gpu_prefix(name)}turn.json"
        self._wanted = f"{gpu_prefix(name)}wanted.json"
        self._clock = clock
        self._lease_seconds = lease_seconds

    # --- inference --------------------------------------------------------------------------------------------

    async def for_serving(self) -> Lease | None:
        """Take the turn. None: a trainer has it, or is next."""
        last, now = await self._claim(self._turn), self._clock()
        given_up = last is None or (last.owner == INFERENCE and last.expires <= now)
        if given_up and await self.wanted():
            return None
        return await Lease.take(self._ledger, self._turn, INFERENCE, now, SERVING_SECONDS)

    async def wanted(self) -> bool:
        """Whether a trainer is waiting for the turn."""
        wish = await self._claim(self._wanted)
        return wish is not None and wish.expires > self._clock()

    def holding_for_serving(self, lease: Lease) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep the turn while the body runs. The caller gives it up with `release`.

        Raises:
            LeaseLost: a trainer has the turn, or the ledger was away until the lease expired.
        """
        return lease.held(SERVING_SECONDS, self._clock)

    async def release(self, lease: Lease) -> None:
        """End a turn now. `Lease.give_back` is not used, because it forgets when the turn ended, and that decides who
        is next.

        Raises:
            LeaseLost: the turn was no longer ours.
        """
        await lease.renew(self._clock())

    # --- the trainer ------------------------------------------------------------------------------------------

    async def for_training(self, owner: str) -> Lease | None:
        """Take the turn if inference has given it up or is absent. None: not yet; the wish for it was written or
        renewed."""
        last, now = await self._claim(self._turn), self._clock()
        lease = None
        if last is None or now >= last.expires + (0.0 if last.owner == INFERENCE else FIRST_RIGHT_SECONDS):
            lease = await Lease.take(self._ledger, self._turn, owner, now, self._lease_seconds)
        if lease is None:
            await self._wish(owner, now)
        else:
            await self._withdraw(owner)
        return lease

    @asynccontextmanager
    async def training(
        self, owner: str, poll_seconds: float, waiting: Callable[[], Awaitable[None]]
    ) -> AsyncIterator[None]:
        """Wait for the turn without limit, and keep it while the body runs. `waiting` is awaited once, if there is a
        wait.

        Raises:
            TransientError: the turn was lost, because the ledger was away for too long.
        """
        lease = await self.for_training(owner)
        if lease is None:
            await waiting()
        while lease is None:
            await asyncio.sleep(poll_seconds)
            lease = await self.for_training(owner)
        try:
            async with lease.held(self._lease_seconds, self._clock):
                yield
        except LeaseLost:
            raise TransientError("the GPU's lease was lost") from None
        finally:
            with contextlib.suppress(LeaseLost, StoreUnavailable):  # the lease expires by itself
                await self.release(lease)

    async def _wish(self, owner: str, now: float) -> None:
        wish = await self._claim(self._wanted)
        if wish is None or wish.expires < now + self._lease_seconds / 2:
            await Lease.take(self._ledger, self._wanted, owner, now, self._lease_seconds)

    async def _withdraw(self, owner: str) -> None:
        with contextlib.suppress(LeaseLost, StoreUnavailable):  # the lease expires by itself
            found = await self._ledger.get(self._wanted)
            if found and (wish := Claim.model_validate_json(found[0])).owner == owner:
                await Lease(self._ledger, self._wanted, wish, found[1]).renew(self._clock())

    async def _claim(self, key: str) -> Claim | None:
        found = await self._ledger.get(key)
        return Claim.model_validate_json(found[0]) if found else None
