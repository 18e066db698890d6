"""Finds the model that a request means by a name (the base, a tuned model, an alias), and lists all of them. What
belongs to another project does not exist for a request; the base is everybody's."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from services.inference.errors import model_not_found
from services.inference.registry.aliases import Aliases
from services.inference.registry.trained import Trained, TrainedModels
from services.inference.registry.watched import Permissions
from shared.errors import ConfigError, InputError, StoreUnavailable
from shared.events import Deployed, Deployment, Served
from shared.ids import tuned_name

FOREIGN = re.compile(r"gpt-|chatgpt-|o[0-9]+(-|$)|text-|davinci|babbage")
"""How the names of models begin that only another system has."""
SETTING = "TUNESTREAM_MODEL__ALIASES"


@dataclass(frozen=True)
class Target:
    """The model that a request means. `model`: the base, or the exact id of a tuned model. `alias`: the alias by which
    the client named it, if any, as the ledger has it."""

    model: str
    tuned: bool
    alias: str | None = None


@dataclass(frozen=True)
class Bases:
    """The base that is served. `foreign`: names of other systems, and the base that each stands for. Both mean the base
    in every project, whatever aliases there are.

    Raises:
        ConfigError: a name stands for a base that is not served.
    """

    base: str
    foreign: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, base in self.foreign.items():
            if base != self.base:
                raise ConfigError(
                    f"{SETTING} maps {name} to {base}, but the base that is served is {self.base} "
                    f"(TUNESTREAM_MODEL__ID): map it to that, or leave it out"
                )

    def __contains__(self, name: object) -> bool:
        return name == self.base or name in self.foreign

    def not_found(self, name: str) -> InputError:
        if FOREIGN.match(name):
            return InputError(
                "model_not_found",
                f"The model `{name[:200]}` does not exist. GET /v1/models lists what can be asked for. Whoever runs "
                f"the server can map this name to its base, {self.base}, with {SETTING}.",
                "model",
            )
        return model_not_found(name)


class Models:
    """Finds the model of a name, and lists all, as one project sees them."""

    def __init__(
        self,
        trained: TrainedModels,
        aliases: Aliases,
        permissions: Permissions,
        bases: Bases,
        *,
        organization: str,
        background: int | None = None,
    ) -> None:
        """`background`: what the card of the base says of requests that can wait (`domain/background.py`)."""
        self._trained = trained
        self._aliases = aliases
        self._permissions = permissions
        self._bases = bases
        self._organization = organization
        self._background = background

    async def resolve(self, name: str, project: str) -> Target:
        """The model that a client of `project` means by `name`.

        Raises:
            InputError: `model_not_found`.
            StoreUnavailable: it is not known, and the ledger cannot be read.
        """
        if name in self._bases:
            return Target(self._bases.base, tuned=False)
        if await self._find(name, project) is not None:
            return Target(name, tuned=True)
        deployment = await self._aliases.get(name, project)
        if deployment is None:
            raise self._bases.not_found(name)
        current = deployment.current.model
        if current == self._bases.base:
            return Target(current, tuned=False, alias=deployment.alias)
        if await self._find(current, project) is None:  # deleted, or no longer shared with this project
            raise self._bases.not_found(name)
        return Target(current, tuned=True, alias=deployment.alias)

    async def version(self, name: str, project: str, at: float) -> Deployed:
        """The version to deploy when a person names `name`, a model or an alias. `job_id` of the base is empty.

        Raises:
            InputError: `model_not_found`.
        """
        named = await self._aliases.read(name, project)  # whatever another replica has just made of it
        target = await self.resolve(named.current.model if named else name, project)
        trained = await self._trained.find(target.model)
        return Deployed(model=target.model, job_id=trained.job_id if trained else "", at=at)

    async def served(self, model: str, project: str) -> Served | None:
        """What validate found out about the rows of `model`.

        Raises:
            InputError: `model_not_found`.
        """
        trained = await self._find(model, project)
        if trained is None:
            raise self._bases.not_found(model)
        return trained.served

    async def cards(self, project: str) -> list[dict[str, Any]]:
        """As `GET /v1/models` lists them: the base, tuned models newest first, aliases.

        Raises:
            StoreUnavailable: nothing is known yet, and the ledger cannot be read.
        """
        given = await self._permissions.given(project)
        found = [trained for trained in await self._trained.all() if _usable(trained, project, given)]
        met = {trained.model for trained in found}
        for model in given:  # also checkpoints, which no list of all has
            with contextlib.suppress(StoreUnavailable):
                if model not in met and (trained := await self._trained.find(model)) is not None:
                    found.append(trained)
        found = sorted(found, key=lambda trained: (-trained.created, trained.model))
        tuned = [self._tuned_card(trained) for trained in found if trained.base == self._bases.base]
        aliases = [self._alias_card(alias) for alias in await self._aliases.listed(project)]
        return [self._base_card(self._bases.base), *tuned, *aliases]

    async def card(self, name: str, project: str) -> dict[str, Any]:
        """One entry of `cards`, or that of a checkpoint or of a foreign name.

        Raises:
            InputError: `model_not_found`.
        """
        if name in self._bases:
            return self._base_card(name)
        target = await self.resolve(name, project)
        if target.alias is not None and (deployment := await self._aliases.get(target.alias, project)):
            return self._alias_card(deployment)
        trained = await self._find(target.model, project)
        if trained is None:
            raise self._bases.not_found(name)
        return self._tuned_card(trained)

    async def _find(self, model: str, project: str) -> Trained | None:
        """The tuned model of this exact id, if the project may use it."""
        trained = await self._trained.find_even_if_deleted(model) if tuned_name(model) else None
        if trained is None or trained.project == project or model in await self._permissions.given(project):
            return await self._trained.find(model) if trained else None
        await self._trained.miss(model)
        return None

    def _base_card(self, name: str) -> dict[str, Any]:
        card = self._card(name, 0, root=self._bases.base, parent=None)
        return card if self._background is None else {**card, "background_requests": self._background}

    def _tuned_card(self, trained: Trained) -> dict[str, Any]:
        return self._card(trained.model, trained.created, root=trained.base, parent=trained.base)

    def _alias_card(self, deployment: Deployment) -> dict[str, Any]:
        current = deployment.current
        return self._card(deployment.alias, current.at, root=current.model, parent=self._bases.base)

    def _card(self, name: str, created: float, *, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(created),
            "owned_by": self._organization,
            "shutdown_date": None,
            "root": root,
            "parent": parent,
        }


def _usable(trained: Trained, project: str, given: Collection[str]) -> bool:
    return trained.project == project or trained.model in given
