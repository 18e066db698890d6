"""Inference and two trainers share one GPU and are killed at random. Both never use its memory at the same time, and
each gets its turn.

`SleepController` and `GpuTurns` are real; vLLM and the training are simulated. A supervised vLLM dies with its service,
and a training process with its trainer.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable
from itertools import pairwise
from typing import cast

import pytest

from services.inference.errors import VllmUnavailable
from services.inference.vllm.gpu_turn import SleepController
from services.inference.vllm.server import Vllm
from shared.errors import StoreUnavailable, TransientError
from shared.stages.gpu_turns import GpuTurns
from tests.sim.loop import run
from tests.support.fakes.store import FakeStore

SEEDS = range(12)
LEASE = 15.0
SERVE = 300.0
JOBS = 4  # per trainer


class Memory:
    """The memory of the GPU: who uses it now, and who filled it in which order."""

    def __init__(self) -> None:
        self.users: set[str] = set()
        self.history: list[str] = []

    def fill(self, who: str) -> None:
        assert not self.users - {who}, f"{who} fills the GPU's memory while {self.users} use it"
        if who not in self.users:
            self.history.append(who)
        self.users.add(who)

    def free(self, who: str) -> None:
        self.users.discard(who)


class UnreliableLedger(FakeStore):
    """The ledger as one process sees it: slow, sometimes unavailable, and unavailable for good once the process is
    dead."""

    def __init__(self, ledger: FakeStore, rng: random.Random) -> None:
        super().__init__(clock=asyncio.get_running_loop().time, disk=ledger.disk)
        self._rng = rng
        self.dead = False

    async def before(self, operation: str, key: str) -> None:
        await asyncio.sleep(self._rng.random() * 0.2)
        if self.dead or self._rng.random() < 0.02:
            raise StoreUnavailable("a test said so")

    async def after(self, operation: str, key: str) -> None:
        if self._rng.random() < 0.02:
            raise StoreUnavailable("the reply was lost")


class SimulatedVllm:
    """The methods of vLLM that `SleepController` calls."""

    def __init__(self, memory: Memory, rng: random.Random) -> None:
        self._memory, self._rng = memory, rng

    async def sleep(self, drain: float) -> None:
        await asyncio.sleep(self._rng.random() * 60)
        if self._rng.random() < 0.2:
            raise VllmUnavailable("a test said so")
        self._memory.free("vllm")

    async def keep_asleep(self) -> None:
        assert "vllm" not in self._memory.users

    async def wake(self) -> None:
        if self._rng.random() < 0.2:
            raise VllmUnavailable("a test said so")
        self._memory.fill("vllm")

    async def wait_ready(self, seconds: float) -> None:
        await asyncio.sleep(40)


class Simulation:
    def __init__(self, seed: int, kill: float) -> None:
        self.rng = random.Random(seed)
        self.kill = kill
        """The probability that a process is killed before it ends."""
        self.memory = Memory()
        self.loop = asyncio.get_running_loop()
        self.ledger = FakeStore(clock=self.loop.time)

    def _turns(self, ledger: UnreliableLedger) -> GpuTurns:
        return GpuTurns(ledger, "0", lease_seconds=LEASE)

    async def inference(self) -> None:
        while True:
            ledger = UnreliableLedger(self.ledger, self.rng)
            vllm = cast(Vllm, SimulatedVllm(self.memory, self.rng))
            sleeps = SleepController(vllm, self._turns(ledger), serve_seconds=SERVE, start_timeout=600, poll_seconds=2)
            await self._run_process(sleeps.run(), ledger)
            self.memory.free("vllm")
            await asyncio.sleep(self.rng.random() * 20)

    async def trainer(self, name: str) -> None:
        done = life = 0
        while done < JOBS:
            life += 1
            ledger = UnreliableLedger(self.ledger, self.rng)
            done += await self._run_process(self._train(f"trainer/{name}/{life}", ledger), ledger)
            self.memory.free("training")
            await asyncio.sleep(self.rng.random() * 10)

    async def _train(self, owner: str, ledger: UnreliableLedger) -> bool:
        async def waiting() -> None: ...

        with contextlib.suppress(TransientError):
            async with self._turns(ledger).training(owner, 2, waiting):
                self.memory.fill("training")
                await asyncio.sleep(self.rng.random() * 600)
                self.memory.free("training")
                return True
        return False

    async def _run_process(self, life: Awaitable[bool | None], ledger: UnreliableLedger) -> bool:
        """Run a process, and perhaps kill it: nothing that a dying process does reaches the ledger."""
        task = asyncio.ensure_future(life)
        if self.rng.random() < self.kill:
            await asyncio.wait({task}, timeout=self.rng.random() * 1500)
            ledger.dead = True
            task.cancel()
        result = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(result, Exception):
            raise result
        return result is True


@pytest.mark.parametrize("seed", SEEDS)
def test_training_and_serving_never_meet_and_always_alternate(seed: int) -> None:
    async def main() -> None:
        simulation = Simulation(seed, kill=0.5 if seed % 2 else 0.0)
        inference = asyncio.create_task(simulation.inference())
        trainers = asyncio.gather(simulation.trainer("a"), simulation.trainer("b"))
        await asyncio.wait({inference, trainers}, return_when=asyncio.FIRST_COMPLETED, timeout=500_000)
        assert trainers.done(), "a training never got the GPU"
        trainers.result()
        inference.cancel()
        if not seed % 2:  # nobody was killed
            assert ("training", "training") not in set(pairwise(simulation.memory.history))

    run(main())
