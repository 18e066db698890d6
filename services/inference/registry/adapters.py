"""Downloads adapters, keeps them in immutable folders, and loads them into vLLM on first use, up to a limit.

A model's folder is `{adapter_dir}/{job}/{digest of its manifest}`, and nothing in it is ever changed. vLLM knows the
adapter by the model's full id, so no cache of vLLM can confuse two versions.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.inference import metrics
from services.inference.domain.adapter import SERVED_FILES, WEIGHTS, config_problems, file_problems
from services.inference.errors import VllmUnavailable, model_not_found
from services.inference.registry.trained import Objects, Trained, TrainedModels
from services.inference.vllm.server import Vllm
from shared import disk, telemetry
from shared.errors import InputError, TunestreamError
from shared.events import Reference

log = logging.getLogger(__name__)


class Adapters:
    """The adapters that vLLM holds. For each model only one operation runs at a time."""

    def __init__(
        self,
        objects: Objects,
        trained: TrainedModels,
        vllm: Vllm,
        *,
        folder: Path,
        base: str,
        max_rank: int,
        limit: int,
    ) -> None:
        """`folder` is shared with vLLM. At most `limit` adapters are held, unless more are in use at once."""
        self._objects = objects
        self._trained = trained
        self._vllm = vllm
        self._folder = folder.resolve()
        self._base = base
        self._max_rank = max_rank
        self._limit = limit
        self._loaded: OrderedDict[str, None] = OrderedDict()  # least recently used first
        self._generation = vllm.generation
        self._under_way: dict[str, asyncio.Task[None]] = {}
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
            await asyncio.shield(self._begin(model, self._find_and_fetch(model)))

    def forget(self, model: str) -> None:
        """Note that vLLM has lost the adapter of `model`, as after a restart of a server that we do not supervise."""
        self._loaded.pop(model, None)

    async def weights(self, model: str) -> Path | None:
        """The file with the weights of `model`, if it was downloaded."""
        trained = await self._trained.find(model)
        path = self._path(trained) / WEIGHTS if trained else None
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
                task = self._begin(model, self._load(model))
            # shielded: the first request may be cancelled while others wait for the same load
            await asyncio.shield(task)

    def _begin(self, model: str, operation: Coroutine[Any, Any, object]) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                await operation
            finally:
                # not in a callback: until it ran, a request would find the ended task and start no other
                del self._under_way[model]

        task = asyncio.create_task(run())
        task.add_done_callback(
            lambda ended: ended.cancelled() or ended.exception()
        )  # marks the exception as retrieved, because nobody may be waiting any more
        self._under_way[model] = task
        return task

    async def _load(self, model: str) -> None:
        generation = self._vllm.generation
        try:
            # these spans are children of the span of the first user: an evaluation, a deployment, or a request
            trained, path = await self._find_and_fetch(model)
            with telemetry.span("inference.load_adapter", attributes={"tunestream.model": model}):
                await self._vllm.load_adapter(model, path)
        except Exception as error:
            metrics.adapter_loads.labels("unavailable" if isinstance(error, VllmUnavailable) else "failed").inc()
            raise
        if generation == self._vllm.generation:
            self._loaded[model] = None
        metrics.adapter_loads.labels("loaded").inc()
        log.info("adapter loaded", extra={"model": model, "job_id": trained.job_id})
        self._shrink()
        metrics.adapters_loaded.set(len(self._loaded))

    def _shrink(self) -> None:
        """Begin to unload the adapters over the limit: the least recently used of those that are not in use."""
        idle = [model for model in self._loaded if model not in self._users]
        for model in idle[: max(0, len(self._loaded) - self._limit)]:
            del self._loaded[model]
            self._begin(model, self._unload(model))

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
        with disk.writing(self._folder, "TUNESTREAM_INFERENCE__ADAPTER_DIR"):
            return trained, await self._fetch(trained)

    async def _fetch(self, trained: Trained) -> Path:
        """The folder with the two files that vLLM reads. They are downloaded and checked if the folder is not there."""
        if trained.base != self._base:
            raise _unservable(trained, [f"it was tuned from {trained.base}, served here is {self._base}"])
        path = self._path(trained)
        if not path.is_dir():
            with telemetry.span("inference.fetch_adapter", attributes={"tunestream.model": trained.model}):
                await self._download(trained, path)
        return path

    def _path(self, trained: Trained) -> Path:
        return self._folder / trained.job_id / trained.adapter.manifest.sha256

    async def _download(self, trained: Trained, path: Path) -> None:
        manifest = json.loads(await self._objects.read(trained.adapter.manifest))
        files: dict[str, Any] = manifest["files"]
        if problems := file_problems(files):
            raise _unservable(trained, problems)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=".part-"))
        try:
            for name in SERVED_FILES:
                await self._objects.download(Reference.model_validate(files[name]), partial / name)
            config = json.loads((partial / "adapter_config.json").read_bytes())
            if problems := config_problems(config, self._max_rank):
                raise _unservable(trained, problems)
            partial.chmod(0o755)  # a separate vLLM server may run as another user
            for name in SERVED_FILES:
                (partial / name).chmod(0o644)
            try:
                partial.rename(path)
            except OSError:
                if not path.is_dir():  # otherwise another replica was faster with the same bytes
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _unservable(trained: Trained, problems: list[str]) -> InputError:
    return InputError(
        "model_not_servable", f"The model `{trained.model}` cannot be served: {'; '.join(problems)}.", "model"
    )
