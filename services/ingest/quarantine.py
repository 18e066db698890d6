"""What ingest does with drops and events of which no job can be made now: come back to them later, or put them into
quarantine. Either way the others go on."""

from __future__ import annotations

import logging
import posixpath
import time
from collections.abc import Callable
from dataclasses import dataclass

from services.ingest import metrics
from services.ingest.domain.failures import Verdict, verdict
from shared import drops
from shared.errors import ConfigError, StoreRefused
from shared.events import Quarantined
from shared.retry import Backoff
from shared.stages import quarantine
from shared.stages.ledger import QUARANTINE
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

PAUSES = Backoff(1.0, 600.0)
"""Between two tries at one dataset."""
LISTED_AFTER = 3
"""Failures in a row after which something that is tried again is listed in the quarantine, too."""
FORGOTTEN_AFTER = 3600.0
"""Seconds after which a dataset that was to be tried again, and was not found any more, is forgotten."""


@dataclass
class Item:
    """A drop or an event. `name` is its name in `ingest/seen/`. `place` is where its dataset is, for people.

    `origin` is where it came from: the place of a drop, the name of an event. `version` changes whenever the object is
    written again, even with the same bytes, so that touching an object is enough to have it looked at again.
    """

    kind: drops.Kind
    name: str
    place: str
    origin: str
    version: str = ""

    @property
    def id(self) -> str:
        """Its name in the quarantine. All that ever came from one origin begin alike."""
        return drops.quarantined_id(self.kind, self.origin, self.name, self.version)

    @property
    def origin_id(self) -> str:
        return drops.origin_id(self.kind, self.origin)


@dataclass
class _Setback:
    failures: int
    not_before: float


class Quarantine:
    """Remembers what is tried again and when, in memory, and what is in quarantine."""

    def __init__(self, objects: ObjectStore, timer: Callable[[], float] = time.monotonic) -> None:
        self._objects = objects
        self._timer = timer
        self._setbacks: dict[str, _Setback] = {}
        self._held: dict[str, set[str]] = {}
        """What may be in quarantine unsolved: ids by kind and origin."""

    async def load(self) -> None:
        """Learn what is in quarantine. Not to know it does no harm: something is not marked as solved then."""
        try:
            before = set(self._held)
            entries = await self._objects.list(QUARANTINE)
            for origin in before:  # what the janitor has deleted is forgotten
                self._held.pop(origin, None)
            for entry in entries:
                kind, _, name = entry.key.removeprefix(QUARANTINE).partition("/")
                self._remember(kind, posixpath.splitext(name)[0])
        except (ConfigError, StoreRefused) as error:
            log.error("the quarantine cannot be listed", extra={"reason": str(error)})
        now = self._timer()
        for name in [name for name, each in self._setbacks.items() if now - each.not_before > FORGOTTEN_AFTER]:
            del self._setbacks[name]

    @property
    def restless(self) -> bool:
        """Whether something is to be tried again."""
        return bool(self._setbacks)

    def waits(self, item: Item) -> bool:
        """Whether it is too early to try again."""
        setback = self._setbacks.get(item.name)
        return setback is not None and self._timer() < setback.not_before

    async def final(self, item: Item, error: Exception) -> None:
        """Put it into quarantine: it will not be tried again.

        Raises:
            StoreUnavailable, StoreRefused, ConfigError: the quarantine cannot be written.
        """
        await self._hold(item, verdict(item.kind, error))
        self._setbacks.pop(item.name, None)

    async def later(self, item: Item, error: Exception) -> None:
        """Try it again after a pause. Raises nothing."""
        failures = self._setbacks[item.name].failures + 1 if item.name in self._setbacks else 1
        self._setbacks[item.name] = _Setback(failures, self._timer() + PAUSES.jittered(failures))
        metrics.setbacks.labels(item.kind, type(error).__name__).inc()
        judged = verdict(item.kind, error)
        log.warning("no job made, trying again later", extra={"reason": type(error).__name__, "count": failures})
        if failures < LISTED_AFTER:
            return
        try:
            await self._hold(item, judged)
        except Exception as unwritten:  # the list is for people; the dataset is tried again all the same
            log.warning("the quarantine cannot be written", extra={"reason": type(unwritten).__name__})

    async def solved(self, item: Item) -> None:
        """There is a job: whatever came from the same place before is no problem any more. Raises nothing."""
        self._setbacks.pop(item.name, None)
        for name in self._held.pop(item.kind + "/" + item.origin_id, ()):
            try:
                await quarantine.solve(self._objects, item.kind, name)
            except Exception as error:
                log.warning("the quarantine cannot be written", extra={"reason": type(error).__name__})

    async def _hold(self, item: Item, judged: Verdict) -> None:
        about = Quarantined(
            kind=item.kind,
            place=quarantine.short(item.place),
            field=quarantine.short(judged.field) if judged.field else None,
            reason=quarantine.short(judged.reason),
            remedy=judged.remedy,
            final=judged.final,
            at=self._objects.now(),
        )
        new = await quarantine.hold(self._objects, item.id, about)
        self._remember(item.kind, item.id)
        if new:
            metrics.quarantined.labels(item.kind).inc()
            log.warning("in quarantine", extra={"reason": judged.field or "", "event": item.kind})

    def _remember(self, kind: str, name: str) -> None:
        origin_id = name[: name.rfind("-") + 1]
        self._held.setdefault(f"{kind}/{origin_id}", set()).add(name)
