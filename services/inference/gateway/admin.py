"""The administrative routes: list deployments, deploy any known model to an alias by hand, roll back.

A call may name the model that the alias is expected to name before. Then it can be repeated when its answer was lost:
it is done once, and whoever came in between is not overruled.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from services.inference.domain import deployments
from services.inference.domain.deployments import NeverNamed, NoPrevious, RolledBack, VersionChanged
from services.inference.errors import RETRY_AFTER, AdapterRefused
from services.inference.gateway.answers import DeploymentList
from services.inference.registry.aliases import Aliases
from services.inference.registry.models import Bases, Models
from services.inference.trial import Trial
from shared import ids
from shared.access.principal import principal_of
from shared.errors import ConfigError, CorruptObject
from shared.events import Deployed, Deployment, StrictModel
from shared.events.limits import Name
from shared.http.errors import ApiError
from shared.http.json_route import JsonRoute
from shared.http.responses import JsonResponse

log = logging.getLogger(__name__)


class DeployRequest(StrictModel):
    """`model`: the base, a tuned model's id, or another alias, which stands for its current version. `expected`: the id
    of the model that the alias names before."""

    model: Name
    expected: Name | None = None


class RollbackRequest(StrictModel):
    """`to`: the id of a model that the alias named; without it, the one before the current one. `expected`: the id of
    the model that the alias names before."""

    to: Name | None = None
    expected: Name | None = None


def router(aliases: Aliases, models: Models, trial: Trial, *, bases: Bases, now: Callable[[], float]) -> APIRouter:
    """`now`: seconds since the epoch by the store's clock. All that is done is done in the project of the caller."""
    routes = APIRouter(tags=["deployments"], route_class=JsonRoute)

    @routes.get("/deployments", response_model=DeploymentList)
    async def list_deployments(request: Request) -> Response:
        """The aliases of the project, and the model that each names."""
        project = principal_of(request).project
        found = [deployment for deployment in await aliases.all() if deployment.project == project]
        return JsonResponse({"object": "list", "data": [deployment.model_dump() for deployment in found]})

    @routes.get("/deployments/{alias}", response_model=Deployment)
    async def retrieve_deployment(alias: str, request: Request) -> Response:
        """The model that the alias names, and those that it named before."""
        deployment = await aliases.read(alias, principal_of(request).project)
        if deployment is None:
            raise _no_alias(alias)
        return JsonResponse(deployment.model_dump())

    @routes.post("/deployments/{alias}", response_model=Deployment, responses={409: {}})
    async def deploy(alias: str, wanted: DeployRequest, request: Request) -> Response:
        """Let the alias name this model, whatever its evaluation says. It must answer first."""
        project = principal_of(request).project
        if not ids.is_alias(alias) or alias in bases or ids.alias_of(alias) in bases:
            raise ApiError(
                400,
                "An alias is 1 to 64 letters of any script, digits, dots, dashes or underscores. It begins with a "
                "letter or digit, and is not a name of the base.",
                code="invalid_alias",
                param="alias",
            )
        version = await models.version(wanted.model, project, now())
        before = await aliases.read(alias, project)
        try:
            if deployments.deploy(before, version, alias, wanted.expected) is not before:
                await passes(version, project)
                before = await aliases.deploy(alias, version, wanted.expected, project)
                log.info("deployed by hand", extra={"model": before.current.model})
        except VersionChanged as changed:
            raise _version_changed(changed) from None
        assert before is not None
        return JsonResponse(before.model_dump())

    @routes.post("/deployments/{alias}/rollback", response_model=Deployment, responses={409: {}})
    async def roll_back(alias: str, request: Request, wanted: RollbackRequest | None = None) -> Response:
        """Let the alias name the model again that it named before."""
        wanted = wanted or RollbackRequest()
        project = principal_of(request).project
        deployment = await aliases.read(alias, project)
        if deployment is None:
            raise _no_alias(alias)
        try:
            target = deployments.rollback_target(deployment, wanted.to, wanted.expected)
            if target is not None:
                await passes(target, project)
                deployment = await aliases.roll_back(deployment, target)
                log.info("rolled back", extra={"model": deployment.current.model})
        except VersionChanged as changed:
            raise _version_changed(changed) from None
        except (RolledBack, NoPrevious, NeverNamed) as refused:
            raise _refused(refused, deployment) from None
        return JsonResponse(deployment.model_dump())

    async def passes(version: Deployed, project: str) -> None:
        if version.model == bases.base:
            return
        try:
            await trial(version.model, await models.served(version.model, project))
        except (AdapterRefused, CorruptObject) as error:
            log.error("a model cannot be deployed", exc_info=error, extra={"model": version.model})
            message = f"The alias stays as it is: vLLM cannot serve {version.model}, or its adapter is damaged: {error}"
            raise ApiError(400, message[:1000], code="adapter_unusable", param="model") from None
        except ConfigError as error:
            headers = {"retry-after": str(RETRY_AFTER)}
            raise ApiError(503, f"{error}.", code="service_unavailable", headers=headers) from None

    return routes


def _no_alias(alias: str) -> ApiError:
    message = f"There is no alias `{alias[:100]}`. GET /deployments lists them."
    return ApiError(404, message, code="alias_not_found", param="alias")


def _version_changed(changed: VersionChanged) -> ApiError:
    now = f"names {changed.current} now" if changed.current else "does not exist yet"
    message = (
        f"The alias `{changed.alias}` {now}, which is not the model that you expect. Nothing was changed: look at it, "
        "and ask again with the model that it names as `expected`."
    )
    return ApiError(409, message, code="version_changed", param="expected")


def _refused(error: RolledBack | NoPrevious | NeverNamed, deployment: Deployment) -> ApiError:
    alias, current = deployment.alias, deployment.current.model
    match error:
        case RolledBack():
            origin = deployments.rolled_back_from(deployment)
            message = (
                f"The alias `{alias}` was rolled back already, from {origin} to {current}. To go further back, send "
                f'{{"expected": "{current}"}}; to go anywhere else, name the model as `to`.'
            )
            return ApiError(409, message, code="already_rolled_back", param="expected")
        case NoPrevious():
            message = (
                f"The alias `{alias}` has no earlier version than {current}. Deploy one: POST /deployments/{alias}."
            )
            return ApiError(400, message, code="no_previous_version", param="alias")
        case NeverNamed():
            message = f"The alias `{alias}` never named the model `to`. Deploy it: POST /deployments/{alias}."
            return ApiError(400, message, code="not_in_history", param="to")
