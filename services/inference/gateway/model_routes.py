"""The routes of OpenAI's Models API: list, retrieve, delete. An id may hold slashes."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from services.inference.gateway.answers import Model, ModelDeleted, ModelList
from services.inference.registry.deletion import Deletion
from services.inference.registry.models import Models
from shared.access.principal import principal_of
from shared.http.repeated import is_repeated
from shared.http.responses import JsonResponse


def router(models: Models, delete: Deletion) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models", response_model=ModelList)
    async def list_models(request: Request) -> Response:
        """The base, tuned models newest first, and aliases. All of them answer in chat."""
        return JsonResponse({"object": "list", "data": await models.cards(principal_of(request).project)})

    @routes.get("/v1/models/{model:path}", response_model=Model)
    async def retrieve_model(model: str, request: Request) -> Response:
        """Also a checkpoint of a tuned model, which the list does not have."""
        return JsonResponse(await models.card(model, principal_of(request).project))

    @routes.delete("/v1/models/{model:path}", response_model=ModelDeleted)
    async def delete_model(model: str, request: Request) -> Response:
        """Delete a tuned model. It is not found from now on."""
        await delete(model, principal_of(request).project, repeated=is_repeated(request))
        return JsonResponse({"id": model, "object": "model", "deleted": True})

    return routes
