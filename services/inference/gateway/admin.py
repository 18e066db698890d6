"""The administrative routes: list deployments, deploy any known model to an alias by hand, roll back."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from services.inference.domain.deployments import NoPrevious
from services.inference.registry.aliases import Aliases
from services.inference.registry.models import Models
from shared import ids
from shared.events import StrictModel
from shared.events.limits import Name
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute

log = logging.getLogger(__name__)


class DeployRequest(StrictModel):
    """`model`: the base, a tuned model's id, or another alias, which stands for its current version."""

    model: Name


def router(aliases: Aliases, models: Models, *, base: str, now: Callable[[], float]) -> APIRouter:
    """`now`: seconds since the epoch by the store's clock."""
    routes = APIRouter(route_class=JsonRoute)

    @routes.get("/deployments")
    async def list_deployments() -> dict[str, Any]:
        return {"object": "list", "data": [deployment.model_dump() for deployment in await aliases.all()]}

    @routes.get("/deployments/{alias}")
    async def retrieve_deployment(alias: str) -> dict[str, Any]:
        deployment = await aliases.read(alias)
        if deployment is None:
            raise _no_alias(alias)
        return deployment.model_dump()

    @routes.post("/deployments/{alias}")
    async def deploy(alias: str, wanted: DeployRequest) -> dict[str, Any]:
        if not ids.is_alias(alias) or base in (alias, ids.alias_of(alias)):
            raise ApiError(
                400,
                "An alias is 1 to 64 letters of any script, digits, dots, dashes or underscores. It begins with a "
                "letter or digit, and is not the name of the base.",
                code="invalid_alias",
                param="alias",
            )
        deployment = await aliases.deploy(alias, await models.version(wanted.model, now()))
        log.info("deployed by hand", extra={"model": deployment.current.model})
        return deployment.model_dump()

    @routes.post("/deployments/{alias}/rollback")
    async def roll_back(alias: str) -> dict[str, Any]:
        try:
            deployment = await aliases.roll_back(alias)
        except NoPrevious:
            raise ApiError(
                400,
                f"The alias `{alias}` has had one version only. Deploy another: POST /deployments/{alias}.",
                code="no_previous_version",
                param="alias",
            ) from None
        if deployment is None:
            raise _no_alias(alias)
        log.info("rolled back", extra={"model": deployment.current.model})
        return deployment.model_dump()

    return routes


def _no_alias(alias: str) -> ApiError:
    message = f"There is no alias `{alias[:100]}`. GET /deployments lists them."
    return ApiError(404, message, code="alias_not_found", param="alias")
