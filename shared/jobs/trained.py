"""Finds how a model was trained, by its id, and its adapter, for a job that starts from it."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from pydantic import ValidationError

from shared.access.tuned_models import may_use
from shared.errors import InputError
from shared.events import FolderReference, TrainingCompleted
from shared.ids import TunedName, tuned_name
from shared.stages import outbox
from shared.stages.ledger import JOBS, Ledger
from shared.store.folders import find_folder
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Start:
    """The adapter of a tuned model, or of one of its checkpoints, and the base that it belongs to."""

    base: str
    adapter: FolderReference


def is_tuned(model: str | None) -> bool:
    """Whether a job names a tuned model and not a base."""
    return model is not None and model.startswith("ft:")


async def find_training(ledger: Ledger, name: TunedName) -> TrainingCompleted | None:
    """The training that made the model `name`, or the model of which it is a checkpoint; None: none that can be read.

    Raises:
        StoreUnavailable: the ledger cannot be read.
    """
    # the ids of several jobs may begin with the same eight characters; the whole id belongs to one
    for job_id in await ledger.folders(f"{JOBS}ftjob-{name.job_prefix}"):
        try:
            result = await outbox.read(ledger, job_id, "trainer")
            event = result.event.event() if result is not None and result.outcome == "completed" else None
        except (ValidationError, KeyError):  # another version wrote it, or it is damaged
            log.error("the result of a training cannot be read", extra={"job_id": job_id})
            continue
        if isinstance(event, TrainingCompleted) and event.model == name.model:
            return event
    return None


async def find_trained(objects: ObjectStore, model: str, project: str) -> Start:
    """How `model` was trained, by the ledger: `ft:{base}:{org}:{suffix}:{8 chars}`, or a checkpoint of it with
    `:ckpt-step-{n}`. A model that `project` may not use is none.

    Raises:
        InputError: `model_not_found`: no job has trained it for the project, or it was deleted.
        StoreUnavailable: the ledger cannot be read.
    """
    name = tuned_name(model)
    training = await find_training(objects, name) if name else None
    if name is None or training is None or not await may_use(objects, training, model, project):
        raise _not_found(model)
    if name.step is None:
        return Start(training.base, training.adapter)
    # the event names a checkpoint by its prefix only, and checkpoints may have been deleted
    prefix = next((checkpoint.prefix for checkpoint in training.checkpoints if checkpoint.step == name.step), None)
    folder = await find_folder(objects, training.adapter.bucket, prefix) if prefix else None
    if folder is None:
        raise _not_found(model)
    return Start(training.base, folder)


def _not_found(model: str) -> InputError:
    return InputError(
        "model_not_found",
        f"No job here has trained {model}, or its training has not ended; name the exact id of a tuned model or of one "
        "of its checkpoints, or a base model.",
        "model",
    )
