"""Turns of a GPU that vLLM and training use alternately (`gpu.share = alternate`).

    gpu/{name}/turn.json     lease: who may fill the GPU's memory now, vLLM (`inference`) or a trainer
    gpu/{name}/wanted.json   lease: a trainer is waiting for its turn

Inference has the turn whenever no trainer wants it. It gives up the turn only after vLLM has released the memory, and
gets it back after every training: otherwise a queue of trainings would keep the endpoint from the evaluation of the
model that was just trained. An owner that dies loses the turn when its lease expires.

This module knows only a ledger. Each method but `training` looks once; the caller repeats it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shared.errors import ConfigError, LeaseLost, StoreRefused, TransientError
from shared.events import Claim
from shared.stages.lease import Claims, Lease
from shared.stages.ledger import Ledger, gpu_prefix

INFERENCE = "inference"
"""The owner of a serving turn: one name for all processes, so that after a crash the turn is taken up again at once.
Therefore there is one inference service per GPU."""
SERVING_SECONDS = 300.0
"""How long a serving turn is valid. It is long, because a vLLM that is not our child keeps its memory when its gateway
dies. A restarted gateway is back much sooner, and only then can the memory be released for a training."""
FIRST_RIGHT_SECONDS = 30.0
"""How long after a training only inference may take the turn; afterwards inference counts as absent."""

_NOT_GIVEN_BACK = (LeaseLost, TransientError, ConfigError, StoreRefused)
"""A lease that cannot be given back expires by itself."""


class GpuTurns:
    """The turns of one GPU. Every method raises `StoreUnavailable` when the ledger is away."""

    def __init__(self, ledger: Ledger, name: str, *, lease_seconds: float) -> None:
        """`name`: of the GPU, unique in the ledger. `lease_seconds`: how long a trainer's turn, and its wish for one,
        are valid without renewal."""
        self._ledger = ledger
        self._turn = f"{gpu_prefix(name)}turn.json"
        self._wanted = f"{gpu_prefix(name)}wanted.json"
        self._claims = Claims(ledger, grace=lease_seconds / 3)
        self._lease_seconds = lease_seconds

    # --- inference --------------------------------------------------------------------------------------------

    async def for_serving(self) -> Lease | None:
        """Take the turn. None: a trainer has it, or is next."""
        last, now = await self._claim(self._turn), self._ledger.now()
        given_up = last is None or (last.owner == INFERENCE and last.expires <= now)
        if given_up and await self.wanted():
            return None
        return await self._claims.take(self._turn, INFERENCE, SERVING_SECONDS)

    async def wanted(self) -> bool:
        """Whether a trainer is waiting for the turn."""
        wish = await self._claim(self._wanted)
        return wish is not None and wish.expires > self._ledger.now()

    def holding_for_serving(self, lease: Lease) -> contextlib.AbstractAsyncContextManager[None]:
        """Keep the turn while the body runs. The caller gives it up with `release`.

        Raises:
            LeaseLost: a trainer has the turn.
        """
        return lease.held()

    async def release(self, lease: Lease) -> None:
        """End a turn now.

        Raises:
            LeaseLost: the turn was no longer ours.
        """
        await lease.give_back()

    # --- the trainer ------------------------------------------------------------------------------------------

    async def for_training(self, owner: str) -> Lease | None:
        """Take the turn if inference has given it up or is absent. None: not yet; the wish for it was written or
        renewed."""
        last, now = await self._claim(self._turn), self._ledger.now()
        lease = None
        if last is None or now >= last.expires + (0.0 if last.owner == INFERENCE else FIRST_RIGHT_SECONDS):
            lease = await self._claims.take(self._turn, owner, self._lease_seconds)
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
            TransientError: the turn was lost: after an outage of the ledger somebody else was faster.
        """
        lease = await self.for_training(owner)
        if lease is None:
            await waiting()
        while lease is None:
            await asyncio.sleep(poll_seconds)
            lease = await self.for_training(owner)
        try:
            async with lease.held():
                yield
        except LeaseLost:
            raise TransientError("the GPU's lease was lost") from None
        finally:
            with contextlib.suppress(*_NOT_GIVEN_BACK):
                await self.release(lease)

    async def _wish(self, owner: str, now: float) -> None:
        wish = await self._claim(self._wanted)
        if wish is None or wish.expires < now + self._lease_seconds / 2:
            await self._claims.take(self._wanted, owner, self._lease_seconds)

    async def _withdraw(self, owner: str) -> None:
        with contextlib.suppress(*_NOT_GIVEN_BACK):
            wish = await self._claim(self._wanted)
            if wish is not None and wish.owner == owner:
                lease = await self._claims.take(self._wanted, owner, self._lease_seconds)
                if lease is not None:
                    await lease.give_back()

    async def _claim(self, key: str) -> Claim | None:
        found = await self._ledger.get(key)
        return Claim.model_validate_json(found[0]) if found else None
