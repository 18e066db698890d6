"""Small documents of the ledger that say what may be used, and that all replicas obey within seconds: tombstones of
models, and permissions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection

from pydantic import ValidationError

from shared.access.tuned_models import DELETED_MODELS
from shared.errors import ConfigError, StoreRefused
from shared.events import CheckpointPermission
from shared.lookups import LOOKUP_SECONDS, REFRESH_SECONDS, answer
from shared.single_flight import SingleFlight
from shared.stages.ledger import DELETED, PERMISSIONS, Ledger
from shared.store.documents import Documents

log = logging.getLogger(__name__)

FRESH_SECONDS = 1.0
"""How old a list may be before it is made anew, while requests go on with the old one."""
STALE_SECONDS = 3.0
"""How old it may be before a request waits for the next one, for a moment."""
TROUBLE_SECONDS = 10.0
"""How long after a list that failed no request waits for the next one."""


class Watched:
    """What is below a prefix of the ledger, by key, as of at most `STALE_SECONDS` ago.

    With requests it is listed once a second, without any never. Nobody waits for that, but for the first list, and
    after a pause. While the store is away, the last list counts.
    """

    def __init__(self, ledger: Ledger, prefix: str, timer: Callable[[], float] = time.monotonic) -> None:
        """`timer`: seconds that only ever grow."""
        self._ledger = ledger
        self._prefix = prefix
        self._timer = timer
        self._listings: SingleFlight[None] = SingleFlight()
        self._listed_at: float | None = None
        """When the last list was begun; None: there is none."""
        self._next_at = float("-inf")
        """No list is begun before."""
        self._trouble_until = float("-inf")
        self._refused = False

    async def refresh(self) -> None:
        """See to it that what is known is new enough.

        Raises:
            StoreUnavailable: nothing is known yet, and the ledger cannot be read.
        """
        now = self._timer()
        age = float("inf") if self._listed_at is None else now - self._listed_at
        if age < FRESH_SECONDS or (now < self._next_at and self._listed_at is not None):
            return
        task = self._listings.begin(self._prefix, self._list)
        if self._listed_at is None:
            await answer(task, LOOKUP_SECONDS)
        elif age >= STALE_SECONDS and now >= self._trouble_until:
            try:
                await answer(task, REFRESH_SECONDS)
            except Exception as error:
                self._trouble_until = self._timer() + TROUBLE_SECONDS
                reason = type(error).__name__
                log.warning("what may be used may be old", extra={"key": self._prefix, "reason": reason})

    async def _list(self) -> None:
        began = self._timer()
        self._next_at = began + FRESH_SECONDS
        try:
            await self._read()
            self._refused = False
        except (ConfigError, StoreRefused) as error:
            # rights of an older version: there is nothing yet that this service may read
            if not self._refused:
                log.error(
                    "the object store refuses a list: give this service the rights of deploy/stack.yaml",
                    extra={"key": self._prefix, "reason": str(error)},
                )
            self._refused = True
        self._listed_at = began
        self._trouble_until = float("-inf")

    async def _read(self) -> None:
        raise NotImplementedError


class DeletedModels(Watched):
    """The models that users have deleted. A tombstone of a model is never taken back."""

    def __init__(self, ledger: Ledger, timer: Callable[[], float] = time.monotonic) -> None:
        super().__init__(ledger, f"{DELETED}{DELETED_MODELS}/", timer)
        self._names: set[str] = set()

    async def has(self, name: str) -> bool:
        """Whether the model was deleted. `name`: its `model_key_name`. Raises like `refresh`."""
        await self.refresh()
        return name in self._names

    def learn(self, name: str) -> None:
        """Note that this process has deleted a model: that is obeyed at once."""
        self._names.add(name)

    async def _read(self) -> None:
        entries = await self._ledger.list(self._prefix)
        self._names |= {entry.key.removeprefix(self._prefix).removesuffix(".json") for entry in entries}


class Permissions(Watched):
    """Which projects may use models of others."""

    def __init__(self, ledger: Ledger, timer: Callable[[], float] = time.monotonic) -> None:
        super().__init__(ledger, PERMISSIONS, timer)
        self._documents = Documents(ledger, PERMISSIONS, _parsed)
        self._given: dict[str, frozenset[str]] = {}
        """The models that each project may use, by their exact ids."""

    async def given(self, project: str) -> Collection[str]:
        """The exact ids of the models of other projects that `project` may use. Raises like `refresh`."""
        await self.refresh()
        return self._given.get(project, frozenset())

    async def _read(self) -> None:
        given: dict[str, set[str]] = {}
        for permission in (await self._documents.look()).values():
            if permission is not None and permission.revoked_at is None:
                given.setdefault(permission.project_id, set()).add(permission.model)
        self._given = {project: frozenset(models) for project, models in given.items()}


def _parsed(key: str, data: bytes) -> CheckpointPermission | None:
    try:
        return CheckpointPermission.model_validate_json(data)
    except ValidationError:
        log.error("a permission cannot be read, so it gives nobody anything", extra={"key": key})
        return None
