"""How permissions look, and which of them a page shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from shared import ids
from shared.events import CheckpointPermission

OBJECT = "checkpoint.permission"


@dataclass(frozen=True)
class Page:
    """Some permissions in the order asked for."""

    rows: Sequence[CheckpointPermission]
    has_more: bool


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


def page_of(
    permissions: Sequence[CheckpointPermission], *, after: str | None, limit: int, ascending: bool, project: str | None
) -> Page | None:
    """The page behind the permission `after`, which may be revoked by now; None: there never was such a one."""
    known = sorted(permissions, key=lambda each: (each.created_at, each.permission_id), reverse=not ascending)
    if after is not None:
        names = [permission.permission_id for permission in known]
        if after not in names:
            return None
        known = known[names.index(after) + 1 :]
    rows = [each for each in known if each.revoked_at is None and project in (None, each.project_id)]
    return Page(rows[:limit], len(rows) > limit)
