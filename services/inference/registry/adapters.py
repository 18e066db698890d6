"""Loads adapters into vLLM on first use, up to a limit.

vLLM knows an adapter by the model's full id, so no cache of vLLM can confuse two versions.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from services.inference import metrics
from services.inference.domain.adapter import WEIGHTS
from services.inference.errors import VllmUnavailable, model_not_found
from services.inference.registry.adapter_files import TIDY_SECONDS, AdapterFiles
from services.inference.registry.trained import Trained, TrainedModels
from services.inference.vllm.server import Vllm
from shared import telemetry
from shared.errors import TunestreamError
from shared.single_flight import SingleFlight

log = logging.getLogger(__name__)


class Adapters:
    """The adapters that vLLM holds. For each model only one operation runs at a time."""

    def __init__(
        self,
        trained: TrainedModels,
        vllm: Vllm,
        files: AdapterFiles,
        *,
        limit: int,
        named: Callable[[], Awaitable[Iterable[str]]],
        warm: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """At most `limit` adapters are held, unless more are in use at once. `named`: the models under an alias.
        `warm` is awaited after an adapter was loaded, before anybody may use it."""
        self._trained = trained
        self._vllm = vllm
        self._files = files
        self._limit = limit
        self._named = named
        self._warm = warm
        self._paths: dict[str, Path] = {}
        """Where the adapter of each model is that is held, or is about to be."""
        self._loaded: OrderedDict[str, None] = OrderedDict()  # least recently used first
        self._generation = vllm.generation
        self._under_way: SingleFlight[object] = SingleFlight()
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def using(self, model: str) -> AsyncIterator[None]:
        """While the block runs, vLLM serves `model`, the exact id of a tuned model.

        Raises:
            InputError: there is no such model (`model_not_found`), or it cannot be served here.
            CorruptObject: its adapter is damaged.
            AdapterRefused: vLLM cannot load it.
            TransientError: the object store or vLLM is away.
        """
        self._users[model] += 1
        try:
            await self._ensure(model)
            yield
        finally:
            self._users[model] -= 1
            if not self._users[model]:
                del self._users[model]

    async def fetch(self, model: str) -> None:
        """Download the adapter of `model`, so that `using` has only to load it. Nobody sees that.

        Raises:
            InputError: there is no such model, or it cannot be served here.
            CorruptObject: its adapter is damaged.
            TransientError: the object store is away, or the disk is full.
        """
        while (task := self._under_way.get(model)) is not None:
            await asyncio.wait({task})
        if model not in self._loaded:
            await asyncio.shield(self._under_way.begin(model, lambda: self._find_and_fetch(model)))

    def forget(self, model: str) -> None:
        """Note that vLLM has lost the adapter of `model`, as after a restart of a server that we do not supervise."""
        self._loaded.pop(model, None)

    def discard(self, model: str) -> None:
        """Begin to unload the adapter of a model that was deleted. One that is in use is unloaded later, by `tidy`."""
        if model in self._loaded and model not in self._users and model not in self._under_way:
            del self._loaded[model]
            self._under_way.begin(model, partial(self._unload, model))
            metrics.adapters_loaded.set(len(self._loaded))

    async def weights(self, model: str) -> Path | None:
        """The file with the weights of `model`, if it was downloaded."""
        trained = await self._trained.find(model)
        path = self._files.path(trained) / WEIGHTS if trained else None
        return path if path is not None and path.is_file() else None

    async def _ensure(self, model: str) -> None:
        while True:
            if self._generation != self._vllm.generation:
                self._loaded.clear()
                metrics.adapters_loaded.set(0)
                self._generation = self._vllm.generation
            if (task := self._under_way.get(model)) is None:
                if model in self._loaded:
                    self._loaded.move_to_end(model)
                    return
                task = self._under_way.begin(model, lambda: self._load(model))
            # shielded: the first request may be cancelled while others wait for the same load
            await asyncio.shield(task)

    async def _load(self, model: str) -> None:
        generation = self._vllm.generation
        try:
            # these spans are children of the span of the first user: an evaluation, a deployment, or a request
            trained, path = await self._find_and_fetch(model)
            with telemetry.span("inference.load_adapter", attributes={"tunestream.model": model}):
                await self._vllm.load_adapter(model, path)
                if self._warm is not None:
                    await self._warm(model)
        except Exception as error:
            metrics.adapter_loads.labels("unavailable" if isinstance(error, VllmUnavailable) else "failed").inc()
            raise
        if generation == self._vllm.generation:
            self._loaded[model] = None
        metrics.adapter_loads.labels("loaded").inc()
        log.info("adapter loaded", extra={"model": model, "job_id": trained.job_id})
        # when this has ended: it may be this model that has to go, if nobody waits for it any more
        asyncio.get_running_loop().call_soon(self._shrink)

    def _shrink(self) -> None:
        """Begin to unload the adapters over the limit: the least recently used of those that are not in use."""
        idle = [model for model in self._loaded if model not in self._users]
        for model in idle[: max(0, len(self._loaded) - self._limit)]:
            del self._loaded[model]
            self._under_way.begin(model, partial(self._unload, model))
        metrics.adapters_loaded.set(len(self._loaded))

    async def _unload(self, model: str) -> None:
        try:
            await self._vllm.unload_adapter(model)
        except TunestreamError as error:  # it stays loaded, which costs a little memory
            log.warning("an adapter could not be unloaded", extra={"model": model, "reason": type(error).__name__})

    # --- files ------------------------------------------------------------------------------------------------

    async def _find_and_fetch(self, model: str) -> tuple[Trained, Path]:
        trained = await self._trained.find(model)
        if trained is None:
            raise model_not_found(model)
        self._paths[model] = self._files.path(trained)
        return trained, await self._files.fetch(trained)

    async def tidy(self) -> None:
        """Delete adapters from the disk that nobody needs, for as long as this service lives."""
        while True:
            try:
                for model in list(self._loaded):
                    if await self._trained.find(model) is None:  # deleted, perhaps by another replica
                        self.discard(model)
                await self._files.tidy(self._in_use, self._under_an_alias)
            except (TunestreamError, OSError) as error:
                log.warning("adapters on the disk are looked at again later", extra={"reason": type(error).__name__})
            await asyncio.sleep(TIDY_SECONDS)

    def _in_use(self) -> set[Path]:
        models = {*self._loaded, *self._users, *self._under_way}
        self._paths = {model: path for model, path in self._paths.items() if model in models}
        return set(self._paths.values())

    async def _under_an_alias(self) -> list[Path]:
        found = [await self._trained.find(model) for model in await self._named()]
        return [self._files.path(trained) for trained in found if trained is not None]
