"""Finds tuned models in the results of the trainer. The id of a model leads to its job."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from shared import telemetry
from shared.errors import StoreUnavailable
from shared.events import FolderReference, Job, Reference, TrainingCompleted
from shared.ids import tuned_name
from shared.stages import outbox
from shared.stages.ledger import JOBS, Ledger, job_key
from shared.store.folders import find_folder

log = logging.getLogger(__name__)

NOT_FOUND_SECONDS = 1.0  # an unknown id is looked up at most once in this time, however many requests name it
READERS = 16  # results that are read at the same time


class Objects(Ledger, Protocol):
    """The part of the object store that this service uses."""

    async def read(self, reference: Reference) -> bytes: ...

    async def download(self, reference: Reference, path: Path) -> None: ...


@dataclass(frozen=True)
class Trained:
    """A tuned model, or a checkpoint of one. `created` is in seconds since the epoch."""

    model: str
    job_id: str
    base: str
    created: float
    adapter: FolderReference


class TrainedModels:
    """Finds tuned models. Results that were found are kept, because they are immutable; a model that was not found is
    looked up again."""

    def __init__(self, objects: Objects, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer`: seconds that only ever grow."""
        self._objects = objects
        self._timer = timer
        self._results: dict[str, tuple[TrainingCompleted, float] | None] = {}
        self._missing: dict[str, float] = {}
        self._traceparents: dict[str, str | None] = {}

    async def find(self, model: str) -> Trained | None:
        """The model of this exact id, or None.

        Raises:
            StoreUnavailable: the ledger cannot be read.
        """
        name = tuned_name(model)
        if name is None or self._timer() < self._missing.get(model, 0.0):
            return None
        # the ids of several jobs may begin with the same eight characters; the whole id belongs to one
        for job_id in await self._objects.folders(f"{JOBS}ftjob-{name.job_prefix}"):
            result = await self._result(job_id)
            if result is not None and result[0].model == name.model:
                found = await self._trained(model, name.step, *result)
                if found is not None:
                    return found
        self._missing = {key: until for key, until in self._missing.items() if until > self._timer()}
        self._missing[model] = self._timer() + NOT_FOUND_SECONDS
        return None

    async def all(self) -> list[Trained]:
        """Every tuned model, newest first. Reads one small object for each job whose result is not known yet."""
        readers = asyncio.Semaphore(READERS)

        async def read(job_id: str) -> tuple[TrainingCompleted, float] | None:
            async with readers:
                return await self._result(job_id)

        results = await asyncio.gather(*(read(job_id) for job_id in await self._objects.folders(JOBS)))
        found = [
            Trained(event.model, event.job_id, event.base, created, event.adapter)
            for event, created in (result for result in results if result is not None)
        ]
        return sorted(found, key=lambda trained: (-trained.created, trained.model))

    async def traceparent(self, model: str) -> str | None:
        """The traceparent of the job that trained `model`; None if it is not known or cannot be read right now."""
        if model not in self._traceparents:
            try:
                trained = await self.find(model)
                found = await self._objects.get(job_key(trained.job_id)) if trained else None
                given = Job.model_validate_json(found[0]).traceparent if found else None
            except StoreUnavailable:
                return None
            except ValidationError:
                given = None
            self._traceparents[model] = telemetry.valid_traceparent(given)
        return self._traceparents[model]

    async def _result(self, job_id: str) -> tuple[TrainingCompleted, float] | None:
        if job_id not in self._results:
            try:
                result = await outbox.read(self._objects, job_id, "trainer")
                if result is None:
                    return None
                event = result.event.event() if result.outcome == "completed" else None
            except (
                ValidationError,
                KeyError,
            ):  # another version wrote it, or it is damaged: it must not hide the others
                log.error("the result of a training cannot be read", extra={"job_id": job_id})
                self._results[job_id] = None
                return None
            self._results[job_id] = (event, result.finished_at) if isinstance(event, TrainingCompleted) else None
        return self._results[job_id]

    async def _trained(self, model: str, step: int | None, event: TrainingCompleted, created: float) -> Trained | None:
        if step is None:
            return Trained(model, event.job_id, event.base, created, event.adapter)
        for checkpoint in event.checkpoints:
            if checkpoint.step == step:
                # the event names a checkpoint by its prefix only, and checkpoints may have been deleted
                folder = await find_folder(self._objects, event.adapter.bucket, checkpoint.prefix)
                return Trained(model, event.job_id, event.base, created, folder) if folder else None
        return None
