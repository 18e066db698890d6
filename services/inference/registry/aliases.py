"""Reads and writes the aliases, `deployments/{alias}.json`. Every change is a compare-and-swap, so an alias has one
current version, never two."""

from __future__ import annotations

from collections.abc import Callable

from services.inference.domain import deployments
from services.inference.domain.names import is_alias
from shared.errors import AlreadyExists, Conflict, TransientError
from shared.events import Deployed, Deployment
from shared.stages.ledger import Ledger, deployment_key

# How long a promotion by another replica may stay unseen here. It costs one read per second and alias.
FRESH_SECONDS = 1.0
MAX_TRIES = 100  # a lost race means that another writer succeeded; so many in a row mean that the store is broken

Change = Callable[[Deployment | None], Deployment]


class Aliases:
    """The aliases. What was read is cached for a second; changes by this process are seen at once."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._cache: dict[str, tuple[Deployment, float]] = {}

    async def get(self, alias: str) -> Deployment | None:
        """The deployment behind `alias`, None if there is no such alias."""
        if not is_alias(alias):
            return None
        cached = self._cache.get(alias)
        if cached is not None and self._clock() < cached[1]:
            return cached[0]
        deployment, _ = await self._read(alias)
        if deployment is None:
            self._cache.pop(alias, None)
        else:
            self._remember(deployment)
        return deployment

    async def all(self) -> list[Deployment]:
        """Every alias, by name."""
        prefix, suffix = deployment_key("").removesuffix(".json"), ".json"
        entries = await self._ledger.list(prefix)
        names = [entry.key[len(prefix) : -len(suffix)] for entry in entries if entry.key.endswith(suffix)]
        found = [await self.get(name) for name in sorted(names)]
        return [deployment for deployment in found if deployment is not None]

    async def promote(self, alias: str, version: Deployed) -> Deployment:
        """Make `version` current, but only once per job: a repeated call changes nothing, whatever was deployed
        since."""
        return await self._change(alias, lambda before: deployments.promote(before, version, alias))

    async def deploy(self, alias: str, version: Deployed) -> Deployment:
        """Make `version` current because a person says so."""
        return await self._change(alias, lambda before: deployments.deploy(before, version, alias))

    async def roll_back(self, alias: str) -> Deployment | None:
        """Swap current and previous; None: no such alias.

        Raises:
            NoPrevious: the alias has only had one version.
        """
        before, _ = await self._read(alias)
        if before is None:
            return None

        def change(latest: Deployment | None) -> Deployment:
            assert latest is not None, "deployments are never deleted"
            if latest.current != before.current:
                return latest  # another writer changed it in between; only what the caller saw is undone
            return deployments.roll_back(latest, self._clock())

        return await self._change(alias, change)

    async def _change(self, alias: str, change: Change) -> Deployment:
        for _ in range(MAX_TRIES):
            before, etag = await self._read(alias)
            after = change(before)
            if after is not before:
                data = after.model_dump_json().encode()
                try:
                    if etag is None:
                        await self._ledger.create(deployment_key(alias), data)
                    else:
                        await self._ledger.replace(deployment_key(alias), data, etag)
                except (AlreadyExists, Conflict):
                    continue
            self._remember(after)
            return after
        raise TransientError(f"the alias {alias} could not be written: {MAX_TRIES} other writers were faster")

    async def _read(self, alias: str) -> tuple[Deployment | None, str | None]:
        found = await self._ledger.get(deployment_key(alias))
        return (Deployment.model_validate_json(found[0]), found[1]) if found else (None, None)

    def _remember(self, deployment: Deployment) -> None:
        self._cache[deployment.alias] = (deployment, self._clock() + FRESH_SECONDS)
