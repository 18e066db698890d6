"""/v1/fine_tuning/checkpoints/{checkpoint}/permissions: give, list, revoke. An admin key is needed.

`checkpoint` is the id of a tuned model or of a checkpoint of one, which belongs to the project of the key.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.api.resources.answers import Deleted, PermissionList
from services.api.resources.dependencies import Dependencies
from services.api.resources.lists import listing
from services.api.resources.permissions import store
from services.api.resources.permissions.domain import OBJECT, permission_view, shown
from shared.access.principal import Principal, principal_of
from shared.access.tuned_models import permissions
from shared.events.limits import ProjectId
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse

PATH = "/v1/fine_tuning/checkpoints/{checkpoint:path}/permissions"
MOST_PROJECTS = 100
_PERMISSION = re.compile(r"cp_[A-Za-z0-9]{1,64}")
"""It becomes a part of a key."""


class GiveBody(BaseModel):
    """What a client sends to let other projects use a model."""

    model_config = ConfigDict(extra="ignore")
    project_ids: Annotated[list[ProjectId], Field(min_length=1, max_length=MOST_PROJECTS)]


def router(dependencies: Dependencies) -> APIRouter:
    routes = APIRouter(tags=["permissions"], route_class=JsonRoute)
    ledger = dependencies.objects

    async def model_named(checkpoint: str, principal: Principal) -> str:
        name = await store.find_model(ledger, checkpoint, principal.project)
        if name is None:
            message = (
                f"The model `{checkpoint[:200]}` does not exist: name a tuned model or a checkpoint of this project. "
                "GET /v1/models lists them."
            )
            raise ApiError(404, message, code="model_not_found", param="fine_tuned_model_checkpoint")
        return name

    @routes.post(PATH, response_model=PermissionList)
    async def give_permissions(checkpoint: str, body: GiveBody, request: Request) -> Response:
        """Let other projects use this model. One that may already keeps its permission."""
        principal = principal_of(request)
        name = await model_named(checkpoint, principal)
        given = [
            await store.give(ledger, name, checkpoint, principal.project, project)
            for project in dict.fromkeys(body.project_ids)
        ]
        return JsonResponse(listing([permission_view(permission) for permission in given], has_more=False))

    @routes.get(PATH, response_model=PermissionList)
    async def list_permissions(
        checkpoint: str,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        after: str | None = None,
        order: Literal["ascending", "descending"] = "descending",
        project_id: str | None = None,
    ) -> Response:
        """Newest first, or oldest first; `after` is the `last_id` of the page before."""
        name = await model_named(checkpoint, principal_of(request))
        found = shown(await permissions(ledger, name), after=after, ascending=order == "ascending", project=project_id)
        if found is None:
            message = f"There is no permission {after!r} to continue after."
            raise ApiError(404, message, param="after", code="permission_not_found")
        return JsonResponse(listing([permission_view(each) for each in found[:limit]], len(found) > limit))

    @routes.delete(PATH + "/{permission_id}", response_model=Deleted)
    async def revoke_permission(checkpoint: str, permission_id: str, request: Request) -> Response:
        """From now on the other project may not use the model any more."""
        name = await model_named(checkpoint, principal_of(request))
        found = await store.revoke(ledger, name, permission_id) if _PERMISSION.fullmatch(permission_id) else None
        if found is None or (found.revoked_at is not None and not is_repeated(request)):
            raise ApiError(
                404,
                f"There is no permission `{permission_id[:100]}` for this model; GET …/permissions lists them.",
                param="permission_id",
                code="permission_not_found",
            )
        return JsonResponse({"id": permission_id, "object": OBJECT, "deleted": True})

    return routes
