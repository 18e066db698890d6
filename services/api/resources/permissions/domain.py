"""How permissions look, and which of them a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from services.api.resources.lists import behind
from shared import ids
from shared.events import CheckpointPermission

OBJECT = "checkpoint.permission"


def permission_view(permission: CheckpointPermission) -> dict[str, Any]:
    return {
        "id": permission.permission_id,
        "object": OBJECT,
        "created_at": int(permission.created_at),
        "project_id": permission.project_id,
    }


def permission_id(name: str, project: str, before: int) -> str:
    """The id of the next permission for a model that `project` gets. `name`: as keys name the model; `before`: how many
    it was given already. So two clients that ask at once make one."""
    return f"cp_{ids.derive('permission', name, project, before)}"


def valid(permissions: Sequence[CheckpointPermission]) -> list[CheckpointPermission]:
    """Those that are not revoked, oldest first."""
    there = (permission for permission in permissions if permission.revoked_at is None)
    return sorted(there, key=lambda permission: (permission.created_at, permission.permission_id))


def shown(
    permissions: Sequence[CheckpointPermission], *, after: str | None, ascending: bool, project: str | None
) -> Sequence[CheckpointPermission] | None:
    """Those behind the permission `after`, which may be revoked by now; None: there never was such a one."""
    known = sorted(permissions, key=lambda each: (each.created_at, each.permission_id), reverse=not ascending)
    rest = behind(known, after, lambda each: each.permission_id)
    if rest is None:
        return None
    return [each for each in rest if each.revoked_at is None and project in (None, each.project_id)]
