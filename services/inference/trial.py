"""Loads a model and asks the live server about it, before an alias moves to it: by a job, by hand, or by a rollback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.inference.errors import AdapterUnseen, VllmAsleep, VllmUnavailable
from services.inference.live_check import LiveCheck
from services.inference.registry.adapters import Adapters
from services.inference.vllm.server import Vllm
from shared import telemetry
from shared.errors import ConfigError
from shared.events import Served
from shared.tasks import in_background

PATIENCE = 10.0
"""Seconds to wait for a vLLM that is not up. It is short, because meanwhile the attempt keeps later jobs from theirs;
the job comes again."""
LONGEST = 60.0
"""Seconds that a person waits for a trial. What was begun goes on, so the next call finds the adapter on the disk."""
ASLEEP = "a training has the GPU, and vLLM sleeps until it is over (TUNESTREAM_GPU__SHARE=alternate)"


class Trial:
    """What a model has to pass before an alias may move to it."""

    def __init__(self, vllm: Vllm, adapters: Adapters, live_check: LiveCheck, *, patience: float = PATIENCE) -> None:
        """`patience`: seconds to wait for vLLM."""
        self._vllm = vllm
        self._adapters = adapters
        self._live_check = live_check
        self._patience = patience

    async def __call__(self, model: str, served: Served | None) -> str:
        """The whole trial, for somebody who waits for it; what came out. `served` is what validate found out.

        Raises:
            InputError: the adapter cannot be served here, or what is served is not what was trained.
            CorruptObject, AdapterRefused: the adapter is damaged, or vLLM refuses it.
            VllmUnavailable: vLLM is not up, or asleep, or the trial takes too long.
            TransientError: the object store is away, or a disk is full.
            ConfigError: vLLM does not see the folder of the adapters.
        """
        try:
            async with asyncio.timeout(LONGEST):
                await self._adapters.fetch(model)
                async with self.serving():
                    return await self.load_and_ask(model, served)
        except TimeoutError:
            raise VllmUnavailable(f"The model could not be loaded and asked within {LONGEST:.0f} s") from None

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """vLLM is up and stays awake while the block runs. Its errors are told in the words of an operator."""
        try:
            with telemetry.span("inference.wait_for_vllm"):
                await self._vllm.wait_ready(self._patience)
            async with self._vllm.using(self._patience):
                yield
        except VllmAsleep:
            raise VllmAsleep(ASLEEP) from None
        except VllmUnavailable as error:
            raise VllmUnavailable(self._vllm.trouble) from error
        except AdapterUnseen as error:
            raise ConfigError(
                f"{self._vllm.named} does not see the adapters that this service downloads: TUNESTREAM_INFERENCE__"
                "ADAPTER_DIR must be one folder for both"
            ) from error

    async def load_and_ask(self, model: str, served: Served | None) -> str:
        """Load the adapter and ask the live server about it; what came out. A server that hangs is not waited for."""

        async def ask() -> str:
            async with self._adapters.using(model):
                with telemetry.span("inference.live_check"):
                    return await self._live_check(model, served)

        async with in_background(ask()) as asking, in_background(self._vllm.silent(self._patience)) as silence:
            await asyncio.wait({asking, silence}, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                raise VllmUnavailable("The model server hangs")
            return await asking
