"""Reads and writes the aliases, `deployments/{alias}.json`. Every change is a compare-and-swap, so an alias has one
current version, never two."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from services.inference.domain import deployments
from shared import ids
from shared.errors import AlreadyExists, Conflict, TransientError
from shared.events import Deployed, Deployment, Job
from shared.stages.ledger import Ledger, deployment_key, job_key

log = logging.getLogger(__name__)

# How long a promotion by another replica may stay unseen here. It costs one read per second and alias.
FRESH_SECONDS = 1.0
MAX_TRIES = 100  # a lost race means that another writer succeeded; so many in a row mean that the store is broken

Change = Callable[[Deployment | None], Deployment]
_ABSENT = (None, None)


class Aliases:
    """The aliases. What was read is cached for a second; changes by this process are seen at once.

    New aliases are lower case (`ids.alias_of`). Those of older versions keep their name, and a job or a person that
    means one of them in another spelling changes it, and makes no second one.
    """

    def __init__(self, ledger: Ledger, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer`: seconds that only ever grow; a clock that is set back would keep old models in the cache."""
        self._ledger = ledger
        self._timer = timer
        self._cache: dict[str, tuple[Deployment, float]] = {}

    async def get(self, alias: str) -> Deployment | None:
        """The deployment behind `alias`, None if there is no such alias."""
        if not ids.is_alias(alias):
            return None
        for name in dict.fromkeys((alias, ids.alias_of(alias))):
            if (deployment := await self._get(name)) is not None:
                return deployment
        return None

    async def all(self) -> list[Deployment]:
        """Every alias whose document can be read, by name."""
        found = [await self._readable(name) for name in await self._names()]
        return [deployment for deployment in found if deployment is not None]

    async def _readable(self, name: str) -> Deployment | None:
        try:
            return await self.get(name)
        except ValidationError:
            log.error("the document of an alias cannot be read", extra={"alias": name})
            return None

    async def promote(
        self,
        alias: str,
        version: Deployed,
        job: Job | None = None,
        certain: Callable[[], Awaitable[None]] | None = None,
    ) -> Deployment:
        """Make `version` current, but only once per job: a repeated call changes nothing, whatever was deployed
        since. `job`: the job of the version, if it may not take an alias from another dataset. `certain` is awaited
        right before each write; it may be cancelled meanwhile, and then nothing is written.

        Raises:
            AliasTaken: `job` may not take this alias.
        """
        name = await self._name(alias)
        return await self._change(name, lambda before: deployments.promote(before, version, name), job, certain)

    async def deploy(self, alias: str, version: Deployed) -> Deployment:
        """Make `version` current because a person says so."""
        name = await self._name(alias)
        return await self._change(name, lambda before: deployments.deploy(before, version, name))

    async def roll_back(self, alias: str) -> Deployment | None:
        """Swap current and previous; None: no such alias.

        Raises:
            NoPrevious: the alias has only had one version.
        """
        if not ids.is_alias(alias):
            return None
        name = await self._name(alias)
        before, _ = await self._read(name)
        if before is None:
            return None

        def change(latest: Deployment | None) -> Deployment:
            assert latest is not None, "deployments are never deleted"
            if latest.current != before.current:
                return latest  # another writer changed it in between; only what the caller saw is undone
            return deployments.roll_back(latest, self._ledger.now())

        return await self._change(name, change)

    async def _change(
        self,
        alias: str,
        change: Change,
        job: Job | None = None,
        certain: Callable[[], Awaitable[None]] | None = None,
    ) -> Deployment:
        for _ in range(MAX_TRIES):
            before, etag = await self._read(alias)
            after = change(before)
            if after is not before:
                if before is not None and job is not None:
                    await self._ask_owner(before, job)
                data = after.model_dump_json().encode()
                if certain is not None:
                    await certain()
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

    async def _ask_owner(self, deployment: Deployment, job: Job) -> None:
        for maker in deployments.makers(deployment):
            if found := await self._ledger.get(job_key(maker)):
                owner = Job.model_validate_json(found[0])
                if not deployments.may_take(job, owner):
                    raise deployments.AliasTaken(deployment.alias, owner)
                return

    async def _name(self, alias: str) -> str:
        """The name of the alias that `alias` means, or that it is to have."""
        name = ids.alias_of(alias)
        if await self._read(alias) != _ABSENT:
            return alias
        others = [other for other in await self._names() if ids.alias_of(other) == name]
        return name if name in others or not others else others[0]

    async def _names(self) -> list[str]:
        prefix, suffix = deployment_key("").removesuffix(".json"), ".json"
        keys = [entry.key for entry in await self._ledger.list(prefix)]
        return sorted(key[len(prefix) : -len(suffix)] for key in keys if key.endswith(suffix))

    async def _get(self, alias: str) -> Deployment | None:
        cached = self._cache.get(alias)
        if cached is not None and self._timer() < cached[1]:
            return cached[0]
        deployment, _ = await self._read(alias)
        if deployment is None:
            self._cache.pop(alias, None)
        else:
            self._remember(deployment)
        return deployment

    async def _read(self, alias: str) -> tuple[Deployment | None, str | None]:
        found = await self._ledger.get(deployment_key(alias))
        return (Deployment.model_validate_json(found[0]), found[1]) if found else _ABSENT

    def _remember(self, deployment: Deployment) -> None:
        self._cache[deployment.alias] = (deployment, self._timer() + FRESH_SECONDS)
