"""Finds the adapter of a model that an earlier job trained, for a job that starts from it."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import ValidationError

from shared.access.tuned_models import may_use
from shared.errors import InputError
from shared.events import FolderReference, TrainingCompleted
from shared.ids import tuned_name
from shared.stages import outbox
from shared.stages.ledger import JOBS
from shared.store.folders import find_folder
from shared.store.objects import ObjectStore


@dataclass(frozen=True)
class Start:
    """The adapter of a tuned model, or of one of its checkpoints, and the base that it belongs to."""

    base: str
    adapter: FolderReference


def is_tuned(model: str | None) -> bool:
    """Whether a job names a tuned model and not a base."""
    return model is not None and model.startswith("ft:")


async def find_trained(objects: ObjectStore, model: str, project: str) -> Start:
    """How `model` was trained, by the ledger: `ft:{base}:{org}:{suffix}:{8 chars}`, or a checkpoint of it with
    `:ckpt-step-{n}`. A model that `project` may not use is none.

    Raises:
        InputError: `model_not_found`: no job has trained it for the project, or it was deleted.
        StoreUnavailable: the ledger cannot be read.
    """
    name = tuned_name(model)
    # The ids of several jobs may begin with the same eight characters; the whole id belongs to one.
    for job_id in await objects.folders(f"{JOBS}ftjob-{name.job_prefix}") if name else ():
        try:
            result = await outbox.read(objects, job_id, "trainer")
            event = result.event.event() if result is not None and result.outcome == "completed" else None
        except ValidationError:  # of an older version; no job can start from what cannot be read
            continue
        if not isinstance(event, TrainingCompleted) or not name or event.model != name.model:
            continue
        if not await may_use(objects, event, model, project):
            break
        if name.step is None:
            return Start(event.base, event.adapter)
        # the event names a checkpoint by its prefix only, and checkpoints may have been deleted
        prefix = next((checkpoint.prefix for checkpoint in event.checkpoints if checkpoint.step == name.step), None)
        if prefix and (folder := await find_folder(objects, event.adapter.bucket, prefix)):
            return Start(event.base, folder)
    raise _not_found(model)


def _not_found(model: str) -> InputError:
    return InputError(
        "model_not_found",
        f"No job here has trained {model}, or its training has not ended; name the exact id of a tuned model or of one "
        "of its checkpoints, or a base model.",
        "model",
    )
