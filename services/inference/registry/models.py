"""Finds the model that a request means by a name (the base, a tuned model, an alias), and lists all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter

from services.inference.errors import model_not_found
from services.inference.registry.aliases import Aliases
from services.inference.registry.trained import Trained, TrainedModels
from shared.events import Deployed, Deployment, Served
from shared.ids import tuned_name


@dataclass(frozen=True)
class Target:
    """The model that a request means. `model`: the base, or the exact id of a tuned model. `alias`: the alias by which
    the client named it, if any, as the ledger has it."""

    model: str
    tuned: bool
    alias: str | None = None


class Models:
    """Finds the model of a name, and lists all."""

    def __init__(self, trained: TrainedModels, aliases: Aliases, *, base: str, organization: str) -> None:
        self._trained = trained
        self._aliases = aliases
        self._base = base
        self._organization = organization

    async def resolve(self, name: str) -> Target:
        """The model that a client means by `name`.

        Raises:
            InputError: `model_not_found`.
            StoreUnavailable: it is not known, and the ledger cannot be read.
        """
        if name == self._base:
            return Target(name, tuned=False)
        if await self._trained.find(name) is not None:
            return Target(name, tuned=True)
        deployment = await self._aliases.get(name)
        if deployment is None:
            raise model_not_found(name)
        current = deployment.current.model
        return Target(current, tuned=current != self._base, alias=deployment.alias)

    async def version(self, name: str, at: float) -> Deployed:
        """The version to deploy when a person names `name`, a model or an alias. `job_id` of the base is empty.

        Raises:
            InputError: `model_not_found`.
        """
        named = await self._aliases.read(name)  # whatever another replica has just made of it
        target = await self.resolve(named.current.model if named else name)
        trained = await self._trained.find(target.model)
        return Deployed(model=target.model, job_id=trained.job_id if trained else "", at=at)

    async def served(self, model: str) -> Served | None:
        """What validate found out about the rows of `model`."""
        trained = await self._trained.find(model)
        return trained.served if trained else None

    async def cards(self) -> list[dict[str, Any]]:
        """As `GET /v1/models` lists them: the base, tuned models newest first, aliases.

        Raises:
            StoreUnavailable: nothing is known yet, and the ledger cannot be read.
        """
        tuned = [self._tuned_card(trained) for trained in await self._trained.all() if trained.base == self._base]
        return [self._base_card(), *tuned, *(self._alias_card(alias) for alias in await self._aliases.listed())]

    async def card(self, name: str) -> dict[str, Any]:
        """One entry of `cards`.

        Raises:
            InputError: `model_not_found`.
        """
        target = await self.resolve(name)
        if target.alias is not None and (deployment := await self._aliases.get(target.alias)):
            return self._alias_card(deployment)
        trained = await self._trained.find(name) if tuned_name(name) else None
        return self._tuned_card(trained) if trained else self._base_card()

    def _base_card(self) -> dict[str, Any]:
        return self._card(self._base, 0, root=self._base, parent=None)

    def _tuned_card(self, trained: Trained) -> dict[str, Any]:
        return self._card(trained.model, trained.created, root=trained.base, parent=trained.base)

    def _alias_card(self, deployment: Deployment) -> dict[str, Any]:
        current = deployment.current
        return self._card(deployment.alias, current.at, root=current.model, parent=self._base)

    def _card(self, name: str, created: float, *, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(created),
            "owned_by": self._organization,
            "root": root,
            "parent": parent,
        }


def router(models: Models) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": await models.cards()}

    @routes.get("/v1/models/{model:path}")
    async def retrieve_model(model: str) -> dict[str, Any]:
        return await models.card(model)

    return routes
