"""Finds the adapter of a model that an earlier job trained, for a job that starts from it."""

from __future__ import annotations

from pydantic import ValidationError

from shared.errors import InputError
from shared.events import TrainingCompleted
from shared.ids import tuned_name
from shared.stages import outbox
from shared.stages.ledger import JOBS
from shared.store.objects import ObjectStore


def is_tuned(model: str | None) -> bool:
    """Whether a job names a tuned model and not a base."""
    return model is not None and model.startswith("ft:")


async def find_trained(objects: ObjectStore, model: str) -> TrainingCompleted:
    """How `model`, an id such as `ft:{base}:{org}:{suffix}:{8 chars}`, was trained, by the ledger.

    Raises:
        InputError: `model_not_found`: no job has trained it.
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
        if isinstance(event, TrainingCompleted) and event.model == model:
            return event
    raise InputError(
        "model_not_found",
        f"No job here has trained {model}, or its training has not ended; name the exact id of a tuned model, without "
        "a checkpoint's step, or a base model.",
        "model",
    )
