"""The routes of OpenAI's Models API: list, retrieve, delete. An id may hold slashes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from services.inference.registry.deletion import Deletion
from services.inference.registry.models import Models
from shared.access.principal import principal_of
from shared.http.errors import ApiError


def router(models: Models, delete: Deletion) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models(request: Request) -> dict[str, Any]:
        return {"object": "list", "data": await models.cards(principal_of(request).project)}

    @routes.get("/v1/models/{model:path}")
    async def retrieve_model(model: str, request: Request) -> dict[str, Any]:
        return await models.card(model, principal_of(request).project)

    @routes.delete("/v1/models/{model:path}")
    async def delete_model(model: str, request: Request) -> dict[str, Any]:
        principal = principal_of(request)
        if not principal.rights & {"train", "admin"}:
            raise ApiError(
                403,
                "This API key may not delete models: it needs the right `train`.",
                code="insufficient_permissions",
            )
        repeated = request.headers.get("x-stainless-retry-count", "0") not in ("", "0")
        await delete(model, principal.project, repeated=repeated)
        return {"id": model, "object": "model", "deleted": True}

    return routes
