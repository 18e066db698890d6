"""Finds tuned models in the results of the trainer. The id of a model leads to its job."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from services.inference.registry.watched import DeletedModels
from shared import telemetry
from shared.access.tuned_models import model_key_name
from shared.errors import ConfigError, StoreRefused, StoreUnavailable
from shared.events import FolderReference, Job, Reference, Served, StageName, StageResult, TrainingCompleted
from shared.events.limits import DEFAULT_PROJECT
from shared.ids import tuned_name
from shared.lookups import LOOKUP_SECONDS, REFRESH_SECONDS, Missing, answer
from shared.single_flight import SingleFlight
from shared.stages import outbox
from shared.stages.ledger import JOBS, Ledger, job_key
from shared.store.folders import find_folder

log = logging.getLogger(__name__)

LISTED_SECONDS = 5.0
"""How old a list of all models may be, and so the time between two looks at each unfinished job. What was asked for by
its id, or deployed, is listed at once."""
READERS = 16  # results that are read at the same time


class Objects(Ledger, Protocol):
    """The part of the object store that this service uses."""

    async def read(self, reference: Reference) -> bytes: ...

    async def download(self, reference: Reference, path: Path) -> None: ...


@dataclass(frozen=True)
class Trained:
    """A tuned model, or a checkpoint of one. `created` is in seconds since the epoch. `served`: how validate saw it
    compare with what vLLM makes of its rows. `project`: whose it is. `step`: of a checkpoint."""

    model: str
    job_id: str
    base: str
    created: float
    adapter: FolderReference
    served: Served | None = None
    project: str = DEFAULT_PROJECT
    step: int | None = None

    @cached_property
    def key_name(self) -> str:
        """How keys name it."""
        return model_key_name(self.job_id, self.step)


@dataclass(frozen=True)
class Training:
    """What the result of a training says of its model. `checkpoints`: their prefixes, by step."""

    trained: Trained
    checkpoints: Mapping[int, str]


class TrainedModels:
    """Finds tuned models. A result never changes, so what was found once is known for as long as this process lives,
    without another question to the store. A model that was not found is looked up again. One that was deleted is never
    found: tombstones are obeyed here, because nothing else in this service remembers what exists."""

    def __init__(
        self, objects: Objects, deleted: DeletedModels | None = None, *, timer: Callable[[], float] = time.monotonic
    ) -> None:
        """`deleted`: the models that users have deleted; None: nobody deletes any. `timer`: seconds that only ever
        grow."""
        self._objects = objects
        self._deleted = deleted
        self._timer = timer
        self._known: dict[str, Trained] = {}
        """Every model that was found, by its exact id, also those that were deleted since."""
        self._trainings: dict[str, Training] = {}
        """The training of each job that has a model."""
        self._without: set[str] = set()
        """Jobs that will never have a model that can be served: they failed, were cancelled, or cannot be read."""
        self._validated: set[str] = set()
        """Unfinished jobs whose dataset was accepted: only their training is still to be looked at."""
        self._missing = Missing(timer)
        self._lookups: SingleFlight[Trained | None] = SingleFlight()
        self._misses: SingleFlight[None] = SingleFlight()
        self._listings: SingleFlight[None] = SingleFlight()
        self._listed_at: float | None = None

    async def find(self, model: str) -> Trained | None:
        """The model of this exact id, of whatever project, or None.

        Raises:
            StoreUnavailable: it is not known, and the ledger cannot be read within a few seconds.
        """
        known = self._known.get(model) or await self.find_even_if_deleted(model)
        return None if known is None or await self._is_deleted(known) else known

    async def find_even_if_deleted(self, model: str) -> Trained | None:
        """Like `find`, whatever its users have done with it since."""
        if (known := self._known.get(model)) is not None:
            return known
        if tuned_name(model) is None or model in self._missing:
            return None
        return await answer(self._lookups.begin(model, lambda: self._look_up(model)), LOOKUP_SECONDS)

    async def miss(self, model: str) -> None:
        """Look for a model of another project as for one that does not exist: that takes as long, and fails while the
        ledger is away.

        Raises:
            StoreUnavailable: the ledger cannot be read within a few seconds.
        """
        if model not in self._missing:
            await answer(self._misses.begin(model, lambda: self._miss(model)), LOOKUP_SECONDS)

    async def all(self) -> list[Trained]:
        """Every tuned model, newest first, as of a moment ago. While the store errs, those that are known.

        A list that is asked for by many at once is made once. It reads small objects of each job whose end is not known
        yet.

        Raises:
            StoreUnavailable: no list was ever made, and the ledger cannot be read.
        """
        if self._listed_at is None:
            await answer(self._listings.begin(JOBS, self._list), None)  # after a restart there is much to read
        elif self._timer() >= self._listed_at + LISTED_SECONDS:
            try:
                await answer(self._listings.begin(JOBS, self._list), REFRESH_SECONDS)
            except Exception as error:
                log.warning("the list of models may be old", extra={"reason": type(error).__name__})
        found = [training.trained for training in self._trainings.values()]
        there = [trained for trained in found if not await self._is_deleted(trained)]
        return sorted(there, key=lambda trained: (-trained.created, trained.model))

    async def is_shared(self, trained: Trained) -> bool:
        """Whether another model, which is not deleted, has the same adapter: that of a retry which took over the
        training, for example.

        Raises:
            StoreUnavailable: the ledger cannot be read.
        """
        await answer(self._listings.begin(JOBS, self._list), None)
        for training in list(self._trainings.values()):
            other, step = training.trained, trained.step
            prefix = other.adapter.prefix if step is None else training.checkpoints.get(step)
            if other.job_id == trained.job_id or prefix is None or not _same_folder(prefix, trained.adapter.prefix):
                continue
            if not await self._is_deleted(replace(other, step=step)):
                return True
        return False

    async def _is_deleted(self, trained: Trained) -> bool:
        return self._deleted is not None and await self._deleted.has(trained.key_name)

    async def traceparent(self, model: str) -> str | None:
        """The traceparent of the job that trained `model`; None if it has none that can be read.

        Raises:
            StoreUnavailable: the ledger cannot be read.
        """
        trained = await self.find(model)
        found = await self._objects.get(job_key(trained.job_id)) if trained else None
        try:
            given = Job.model_validate_json(found[0]).traceparent if found else None
        except ValidationError:
            given = None
        return telemetry.valid_traceparent(given)

    # --- the ledger -------------------------------------------------------------------------------------------

    async def _look_up(self, model: str) -> Trained | None:
        name = tuned_name(model)
        assert name is not None
        # the ids of several jobs may begin with the same eight characters; the whole id belongs to one
        for job_id in await self._objects.folders(f"{JOBS}ftjob-{name.job_prefix}"):
            training = await self._training(job_id)
            if training is not None and training.trained.model == name.model:
                found = await self._of_step(training, model, name.step)
                if found is not None:
                    self._known[model] = found
                    return found
        self._missing.add(model)
        return None

    async def _miss(self, model: str) -> None:
        if (name := tuned_name(model)) is not None:
            await self._objects.folders(f"{JOBS}ftjob-{name.job_prefix}")
        self._missing.add(model)

    async def _list(self) -> None:
        readers = asyncio.Semaphore(READERS)

        async def read(job_id: str) -> None:
            async with readers:
                if await self._training(job_id) is not None or job_id in self._validated or job_id in self._without:
                    return
                # a job that failed before it was trained never gets a result of the trainer
                if await self._result(job_id, "validate") is not None:
                    self._validated.add(job_id)

        began = self._timer()
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                names = await self._objects.folders(JOBS)
        except TimeoutError:
            raise StoreUnavailable("the object store takes too long to answer") from None
        unknown = [name for name in names if name not in self._trainings and name not in self._without]
        await asyncio.gather(*map(read, unknown))
        self._validated.difference_update(self._trainings, self._without)
        self._listed_at = began

    async def _training(self, job_id: str) -> Training | None:
        if job_id not in self._trainings and job_id not in self._without:
            result = await self._result(job_id, "trainer")
            if result is not None:
                self._remember(job_id, result)
        return self._trainings.get(job_id)

    def _remember(self, job_id: str, result: StageResult) -> None:
        try:
            event = result.event.event()
        except (ValidationError, KeyError):  # another version wrote it, or it is damaged: it must not hide the others
            event = None
            log.error("the result of a training cannot be read", extra={"job_id": job_id})
        if not isinstance(event, TrainingCompleted):
            self._without.add(job_id)
            return
        trained = Trained(
            event.model,
            event.job_id,
            event.base,
            result.finished_at,
            event.adapter,
            served=event.served,
            project=event.project,
        )
        checkpoints = {checkpoint.step: checkpoint.prefix for checkpoint in event.checkpoints}
        self._trainings[job_id] = Training(trained, checkpoints)
        self._known[event.model] = trained

    async def _result(self, job_id: str, stage: StageName) -> StageResult | None:
        """The result of a stage, if the job may still have a model."""
        try:
            result = await outbox.read(self._objects, job_id, stage)
        except (StoreRefused, ConfigError):
            if stage == "trainer":
                raise
            return None  # an older key of this service may only read trainings: then the job is looked at again
        except ValidationError:
            if stage == "trainer":
                log.error("the result of a training cannot be read", extra={"job_id": job_id})
                self._without.add(job_id)
            return None
        if result is not None and result.outcome != "completed":
            self._without.add(job_id)
            return None
        return result

    async def _of_step(self, training: Training, model: str, step: int | None) -> Trained | None:
        if step is None:
            return training.trained
        if (prefix := training.checkpoints.get(step)) is None:
            return None
        # the event names a checkpoint by its prefix only, and checkpoints may have been deleted
        folder = await find_folder(self._objects, training.trained.adapter.bucket, prefix)
        return replace(training.trained, model=model, adapter=folder, step=step) if folder else None


def _same_folder(one: str, other: str) -> bool:
    return one.rstrip("/") == other.rstrip("/")
