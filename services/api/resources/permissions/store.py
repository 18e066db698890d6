"""Reads and writes permissions, documents of the ledger. None is ever deleted: one that is revoked says since when."""

from __future__ import annotations

import contextlib
import itertools

from pydantic import ValidationError

from services.api.resources.permissions.domain import permission_id, valid
from shared.access.tuned_models import is_deleted, model_key_name, permission_key, permissions
from shared.errors import AlreadyExists, Conflict
from shared.events import CheckpointPermission
from shared.ids import tuned_name
from shared.jobs.trained import find_training
from shared.stages.ledger import Ledger


async def find_model(ledger: Ledger, model: str, project: str) -> str | None:
    """How keys name `model`, a tuned model of `project` or a checkpoint of one; None: there is no such model.

    Raises:
        StoreUnavailable: the ledger cannot be read.
    """
    name = tuned_name(model)
    training = await find_training(ledger, name) if name is not None else None
    if name is None or training is None or training.project != project:
        return None
    if name.step is not None and name.step not in [checkpoint.step for checkpoint in training.checkpoints]:
        return None
    if await is_deleted(ledger, training.job_id, name.step):
        return None
    return model_key_name(training.job_id, name.step)


async def give(ledger: Ledger, name: str, model: str, owner: str, project: str) -> CheckpointPermission:
    """The permission of `project` for `model`: the one that it has, or a new one.

    Raises:
        StoreUnavailable: it may not have been written.
    """
    for more in itertools.count():
        given = [each for each in await permissions(ledger, name) if each.project_id == project]
        if there := valid(given):
            return there[0]
        new = CheckpointPermission(
            permission_id=permission_id(name, project, len(given) + more),
            model=model,
            owner=owner,
            project_id=project,
            created_at=ledger.now(),
        )
        with contextlib.suppress(AlreadyExists):  # another client was faster
            await ledger.create(permission_key(name, new.permission_id), new.model_dump_json().encode())
            return new
    raise AssertionError("the loop has no end")


async def revoke(ledger: Ledger, name: str, permission: str) -> CheckpointPermission | None:
    """Revoke the permission of this id. Returns it as it was; None: the model has no such permission.

    Raises:
        StoreUnavailable: it may not be revoked yet.
    """
    key = permission_key(name, permission)
    while (found := await ledger.get(key)) is not None:
        try:
            before = CheckpointPermission.model_validate_json(found[0])
        except ValidationError:
            return None
        if before.revoked_at is not None:
            return before
        after = before.model_copy(update={"revoked_at": ledger.now()})
        with contextlib.suppress(Conflict):
            await ledger.replace(key, after.model_dump_json().encode(), found[1])
            return before
    return None
