"""The routes of OpenAI's Models API: list, retrieve, delete. An id may hold slashes."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from services.inference.registry.deletion import Deletion
from services.inference.registry.models import Models
from shared.access.principal import principal_of
from shared.http.repeated import is_repeated


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
        await delete(model, principal_of(request).project, repeated=is_repeated(request))
        return {"id": model, "object": "model", "deleted": True}

    return routes
