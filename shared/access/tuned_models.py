"""Which tuned models a project may use: its own, and those that another project has given it a permission for, unless
they were deleted. What is written here is obeyed by requests, by the start of a training, and by lists."""

from __future__ import annotations

from pydantic import ValidationError

from shared.events import CheckpointPermission, TrainingCompleted
from shared.ids import tuned_name
from shared.stages.ledger import PERMISSIONS, Ledger, tombstone_key

DELETED_MODELS = "models"
"""The kind of their tombstones."""


def model_key_name(job_id: str, step: int | None = None) -> str:
    """How keys name the model of a job, or its checkpoint at `step`."""
    return job_id if step is None else f"{job_id}-ckpt-step-{step}"


def permission_prefix(name: str) -> str:
    """Where the permissions for a model are. `name`: its `model_key_name`."""
    return f"{PERMISSIONS}{name}/"


def permission_key(name: str, permission_id: str) -> str:
    return f"{permission_prefix(name)}{permission_id}.json"


async def is_deleted(ledger: Ledger, job_id: str, step: int | None = None) -> bool:
    """Whether a user has deleted this model.

    Raises:
        StoreUnavailable: the ledger cannot be read.
    """
    return await ledger.get(tombstone_key(DELETED_MODELS, model_key_name(job_id, step))) is not None


async def permissions(ledger: Ledger, name: str) -> list[CheckpointPermission]:
    """Every permission for a model that can be read, the revoked ones among them.

    Raises:
        StoreUnavailable: the ledger cannot be read.
    """
    found: list[CheckpointPermission] = []
    for entry in await ledger.list(permission_prefix(name)):
        if document := await ledger.get(entry.key):
            try:
                found.append(CheckpointPermission.model_validate_json(document[0]))
            except ValidationError:  # of another version: who cannot read it gives nobody anything
                continue
    return found


async def may_use(ledger: Ledger, training: TrainingCompleted, model: str, project: str) -> bool:
    """Whether a key of `project` may use `model`, which is what `training` has made, or a checkpoint of it: to ask it,
    to see it, or to train on from it. If not, the model does not exist for it.

    Raises:
        StoreUnavailable: the ledger cannot be read.
    """
    named = tuned_name(model)
    if named is None or named.model != training.model or await is_deleted(ledger, training.job_id, named.step):
        return False
    if training.project == project:
        return True
    name = model_key_name(training.job_id, named.step)
    return any(each.project_id == project and each.revoked_at is None for each in await permissions(ledger, name))
