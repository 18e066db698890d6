"""Reads and writes the aliases of all projects, below `deployments/`. Every change is a compare-and-swap, so an alias
has one current version, never two."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import ValidationError

from services.inference.domain import deployments
from shared import ids
from shared.errors import AlreadyExists, Conflict, CorruptObject, InputError, TransientError
from shared.events import Deployed, Deployment, Job
from shared.events.limits import DEFAULT_PROJECT
from shared.lookups import (
    LOOKUP_SECONDS,
    MOST_MISSING,
    NOT_FOUND_SECONDS,
    REFRESH_SECONDS,
    answer,
)
from shared.single_flight import SingleFlight
from shared.stages.ledger import DEPLOYMENTS, Ledger, deployment_key, job_key
from shared.store.documents import Documents

log = logging.getLogger(__name__)

# How long a promotion by another replica may stay unseen here. It costs one read per second and alias in use.
FRESH_SECONDS = 1.0
TROUBLE_SECONDS = 10.0
"""How long after a question without an answer no request waits for the next answer."""
MAX_TRIES = 100  # a lost race means that another writer succeeded; so many in a row mean that the store is broken

Change = Callable[[Deployment | None], Deployment]
_ABSENT = (None, None)
_SUFFIX = ".json"


@dataclass
class _Seen:
    """What the store last said of a key: its deployment, or that there is none. It is news until `until`. `error`: why
    the last question got no answer, and `error_at` when that was found out."""

    deployment: Deployment | None
    until: float
    error: Exception | None = None
    error_at: float = float("-inf")

    def failed(self, error: Exception, at: float) -> None:
        self.error, self.error_at = error, at


class Aliases:
    """The aliases. Two projects may have the same one: in memory, too, each is known by its key.

    `get` and `listed` are for requests. They answer from memory what is at most a second old, and wait for the store
    for a moment only: while it errs, for as long as that takes, what it said last counts. `read` and `all` always ask
    the store. Changes by this process are seen at once.

    New aliases are lower case (`ids.alias_of`). Those of older versions keep their name, and a job or a person that
    means one of them in another spelling changes it, and makes no second one.
    """

    def __init__(self, ledger: Ledger, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer`: seconds that only ever grow; a clock that is set back would keep old models in the cache."""
        self._ledger = ledger
        self._timer = timer
        self._seen: dict[str, _Seen] = {}
        """By key. One that does not exist is in `_absent`."""
        self._absent: OrderedDict[str, _Seen] = OrderedDict()
        self._lookups: SingleFlight[Deployment | None] = SingleFlight()
        self._documents = Documents(ledger, DEPLOYMENTS, _readable)
        self._listings: SingleFlight[list[Deployment]] = SingleFlight()
        self._listed: tuple[float, list[Deployment]] | None = None
        """The last list, and until when it is news."""
        self._unreadable: list[str] = []
        """The keys of the last list whose documents cannot be read."""
        self._changes = 0
        """Changes by this process."""

    # --- for requests -----------------------------------------------------------------------------------------

    async def get(self, alias: str, project: str = DEFAULT_PROJECT) -> Deployment | None:
        """The deployment behind `alias` in `project`, None if there is no such alias.

        Raises:
            StoreUnavailable: it is not known, and the ledger cannot be read within a few seconds.
        """
        if not ids.is_alias(alias) or not ids.is_project(project):
            return None
        unsure: Exception | None = None
        for name in dict.fromkeys((alias, ids.alias_of(alias))):
            key = deployment_key(name, project)
            try:
                if (deployment := await self._get(key)) is not None:
                    return deployment
            except Exception as error:
                if key not in self._absent:
                    raise  # it may be an alias of its own, with another model than its lower-case twin
                unsure = error
        if unsure is not None:
            raise unsure
        return None

    async def listed(self, project: str = DEFAULT_PROJECT) -> list[Deployment]:
        """Every alias of `project`, by name, as `get` knows them."""
        return [deployment for deployment in await self._news() if deployment.project == project]

    async def _news(self) -> list[Deployment]:
        known = self._listed
        if known is not None and self._timer() < known[0]:
            return known[1]
        task = self._listings.begin(DEPLOYMENTS, self.all)
        try:
            return await answer(task, LOOKUP_SECONDS if known is None else REFRESH_SECONDS)
        except Exception as error:
            if known is None:
                raise
            log.warning("the list of aliases may be old", extra={"reason": type(error).__name__})
            return known[1]

    async def _get(self, key: str) -> Deployment | None:
        seen = self._seen.get(key) or self._absent.get(key)
        if seen is not None and self._timer() < seen.until:
            if seen.deployment is None and seen.error is not None:
                raise seen.error
            return seen.deployment
        task = self._lookups.begin(key, lambda: self._refresh(key))
        try:
            return await answer(task, self._patience(seen))
        except Exception as error:
            if seen is None:
                raise
            if seen.error is None:
                log.warning("an alias may be old: it cannot be read", extra={"alias": key, "reason": str(error)})
            seen.failed(error, self._timer())
            if seen.deployment is None:
                raise
            return seen.deployment

    def _patience(self, seen: _Seen | None) -> float:
        """How many seconds a request waits. An outage lets one request wait, and no more: the others ask in the
        background whether it is over."""
        if seen is None:
            return LOOKUP_SECONDS
        troubled = seen.error is not None and self._timer() < seen.error_at + TROUBLE_SECONDS
        return 0.0 if troubled else REFRESH_SECONDS

    async def _refresh(self, key: str) -> Deployment | None:
        before = self._seen.get(key) or self._absent.get(key)
        try:
            deployment, _ = await self._read(key)
        except Exception as error:
            if before is not None:
                before.failed(error, self._timer())
                before.until = self._timer() + FRESH_SECONDS
            raise
        if (later := self._seen.get(key)) is not None and later is not before:
            return later.deployment  # this process has changed it meanwhile
        if deployment is None:
            self._seen.pop(key, None)
            self._absent[key] = _Seen(None, self._timer() + NOT_FOUND_SECONDS)
            self._absent.move_to_end(key)
            if len(self._absent) > MOST_MISSING:
                self._absent.popitem(last=False)
        else:
            self._remember(deployment, key)
        return deployment

    # --- for administration -----------------------------------------------------------------------------------

    async def read(self, alias: str, project: str = DEFAULT_PROJECT) -> Deployment | None:
        """The deployment that a change of `alias` would begin from, as the store has it now; None: there is no such
        alias.

        Raises:
            StoreUnavailable: the ledger cannot be read.
        """
        if not ids.is_alias(alias) or not ids.is_project(project):
            return None
        key = await self._key(alias, project)
        deployment, _ = await self._read(key)
        if deployment is not None:
            self._remember(deployment, key)
        return deployment

    async def all(self) -> list[Deployment]:
        """Every alias of all projects whose document can be read, by key, as the store has them now.

        Raises:
            StoreUnavailable: the ledger cannot be read.
        """
        began, changes = self._timer(), self._changes
        found = {key: each for key, each in (await self._documents.look()).items() if key.endswith(_SUFFIX)}
        self._unreadable = [key for key, deployment in found.items() if deployment is None]
        deployments_ = [deployment for deployment in found.values() if deployment is not None]
        if changes == self._changes:
            self._listed = (began + FRESH_SECONDS, deployments_)
        return deployments_

    async def models(self) -> set[str]:
        """The current and the previous model of every alias of all projects, as the store has them now.

        Raises:
            StoreUnavailable: the ledger cannot be read.
            CorruptObject: the document of an alias cannot be read, so nobody knows what it names.
        """
        found = await self.all()
        if self._unreadable:
            raise CorruptObject(f"the document {self._unreadable[0]} of an alias cannot be read")
        versions = [version for deployment in found for version in (deployment.current, deployment.previous)]
        return {version.model for version in versions if version is not None}

    # --- changes ----------------------------------------------------------------------------------------------

    async def promote(
        self,
        alias: str,
        version: Deployed,
        job: Job | None = None,
        certain: Callable[[], Awaitable[None]] | None = None,
    ) -> Deployment:
        """Make `version` current in the project of `job`, but only once per job: a repeated call changes nothing,
        whatever was deployed since. `job`: the job of the version, if it may not take an alias from another dataset.
        `certain` is awaited right before each write; it may be cancelled meanwhile or raise, and then nothing is
        written.

        Raises:
            AliasTaken: `job` may not take this alias.
        """
        project = job.project if job is not None else DEFAULT_PROJECT
        key = await self._key(alias, project)
        name = _place(key)[1]
        return await self._change(key, lambda before: deployments.promote(before, version, name, project), job, certain)

    async def deploy(
        self, alias: str, version: Deployed, expected: str | None = None, project: str = DEFAULT_PROJECT
    ) -> Deployment:
        """Make `version` current because a person says so. `expected`: the model that is to be current before.

        Raises:
            VersionChanged: another model is current.
            InputError: `invalid_project`.
        """
        key = await self._key(alias, project)
        name = _place(key)[1]
        return await self._change(key, lambda before: deployments.deploy(before, version, name, expected, project))

    async def roll_back(self, deployment: Deployment, target: Deployed) -> Deployment:
        """Make `target` current again, if the alias still names what `deployment` says.

        Raises:
            VersionChanged: another model is current.
        """

        def change(latest: Deployment | None) -> Deployment:
            assert latest is not None, "deployments are never deleted"
            return deployments.roll_back(latest, target, deployment.current.model, self._ledger.now())

        return await self._change(deployment_key(deployment.alias, deployment.project), change)

    async def _change(
        self,
        key: str,
        change: Change,
        job: Job | None = None,
        certain: Callable[[], Awaitable[None]] | None = None,
    ) -> Deployment:
        for _ in range(MAX_TRIES):
            before, etag = await self._read(key)
            after = change(before)
            if after is not before:
                if before is not None and job is not None:
                    await self._ask_owner(before, job)
                data = after.model_dump_json().encode()
                if certain is not None:
                    await certain()
                try:
                    if etag is None:
                        await self._ledger.create(key, data)
                    else:
                        await self._ledger.replace(key, data, etag)
                except (AlreadyExists, Conflict):
                    continue
            self._remember(after, key)
            self._changes += 1
            self._listed = (float("-inf"), self._listed[1]) if self._listed else None
            return after
        raise TransientError(f"the alias {_place(key)[1]} could not be written: {MAX_TRIES} other writers were faster")

    async def _ask_owner(self, deployment: Deployment, job: Job) -> None:
        for maker in deployments.makers(deployment):
            if found := await self._ledger.get(job_key(maker)):
                owner = Job.model_validate_json(found[0])
                if not deployments.may_take(job, owner):
                    raise deployments.AliasTaken(deployment.alias, owner)
                return

    async def _key(self, alias: str, project: str) -> str:
        """The key of the alias that `alias` means in `project`, or that it is to have."""
        if not ids.is_project(project):
            raise InputError("invalid_project", "This is no id of a project: give one that exists.", "project")
        key, name = deployment_key(alias, project), ids.alias_of(alias)
        if await self._read(key) != _ABSENT:
            return key
        others = [other for other in await self._names(project) if ids.alias_of(other) == name]
        return deployment_key(name if name in others or not others else others[0], project)

    async def _names(self, project: str) -> list[str]:
        prefix = deployment_key("", project).removesuffix(_SUFFIX)
        places = [_place(entry.key) for entry in await self._ledger.list(prefix) if entry.key.endswith(_SUFFIX)]
        return sorted(alias for found, alias in places if found == project)

    async def _read(self, key: str) -> tuple[Deployment | None, str | None]:
        found = await self._ledger.get(key)
        return (_parsed(key, found[0]), found[1]) if found else _ABSENT

    def _remember(self, deployment: Deployment, key: str) -> None:
        self._absent.pop(key, None)
        self._seen[key] = _Seen(deployment, self._timer() + FRESH_SECONDS)


def _place(key: str) -> tuple[str, str]:
    """Project and alias of a deployment's key."""
    project, _, alias = key.removeprefix(DEPLOYMENTS).removesuffix(_SUFFIX).rpartition("/")
    return project or DEFAULT_PROJECT, alias


def _readable(key: str, data: bytes) -> Deployment | None:
    try:
        return _parsed(key, data) if key.endswith(_SUFFIX) else None
    except ValidationError:
        log.error("the document of an alias cannot be read", extra={"alias": key})
        return None


def _parsed(key: str, data: bytes) -> Deployment:
    """The key decides to which project it belongs."""
    deployment, project = Deployment.model_validate_json(data), _place(key)[0]
    return deployment if deployment.project == project else deployment.model_copy(update={"project": project})
