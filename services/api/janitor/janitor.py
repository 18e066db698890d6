"""The janitor: of all replicas of the api service, the one that holds the lease carries out tombstones and sweeps.

It is work in the background: whatever goes wrong with it, the api goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from services.api import metrics
from services.api.duty import Duty
from services.api.janitor.documents import CLAIM
from services.api.janitor.removal import Certain
from services.api.janitor.sweep import Sweep
from services.api.janitor.tombstones import Tombstones
from shared.errors import ConfigError, StoreRefused, TransientError
from shared.retry import Backoff
from shared.stages.lease import Lease
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)

LEASE_SECONDS = 180.0
"""It is long, because nothing waits for the janitor, and each renewal is a call."""
AWAY_PAUSES = Backoff(5.0, 300.0)

Task = Callable[[Certain], Awaitable[None]]


class Janitor:
    """Runs beside the api until it is cancelled, and raises nothing."""

    def __init__(
        self,
        objects: ObjectStore,
        tombstones: Tombstones,
        sweep: Sweep,
        *,
        owner: str,
        user: str,
        seconds: float,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`user`: whose credentials `objects` has, and by which setting. `seconds`: between two rounds."""
        self._objects = objects
        self._tombstones = tombstones
        self._sweep = sweep
        self._user = user
        self._seconds = seconds
        self._duty = Duty(objects, CLAIM, name="janitor", owner=owner, lease_seconds=lease_seconds)
        self._failures = 0
        """Rounds in a row in which the store was away."""
        self._refusals: set[str] = set()
        """What the store refuses, as it was logged."""

    async def run(self) -> None:
        """Work whenever the lease is ours."""
        while True:
            await self._guarded(self._term)
            await self._pause()

    async def _term(self) -> None:
        """Work for as long as the lease is held; return at once if it is another's."""
        lease = await self._duty.take()
        self._failures = 0
        if lease is not None:
            self._sweep.forget()
            await self._duty.hold(lease, self._work)

    async def _work(self, lease: Lease) -> None:
        while True:
            refusals, self._refusals = self._refusals, set()
            fine = [await self._guarded(partial(task, lease.certain), refusals) for task in self._tasks]
            if all(fine):
                self._failures = 0
                metrics.janitor_refused.set(0)
            await self._pause()

    @property
    def _tasks(self) -> tuple[Task, ...]:
        return (self._tombstones.carry_out, self._sweep.run_if_due)

    async def _guarded(self, step: Callable[[], Awaitable[None]], logged: set[str] | None = None) -> bool:
        """Await `step()`, whatever it raises. Whether it raised nothing. `logged`: refusals that were logged before."""
        try:
            await step()
            return True
        except TransientError as error:
            self._failures += 1
            if self._failures == 1:
                log.warning("the janitor waits for the object store", extra={"reason": type(error).__name__})
        except (ConfigError, StoreRefused) as error:
            self._refused(str(error), self._refusals if logged is None else logged)
        except Exception:
            log.exception("the janitor has failed, and tries again")
        return False

    def _refused(self, reason: str, logged: set[str]) -> None:
        metrics.janitor_refused.set(1)
        new = reason not in logged | self._refusals
        self._refusals.add(reason)
        if new:
            log.error(
                "the object store refuses the janitor, so what nobody needs stays. Its user is %s: give it the "
                "rights of `janitor` in deploy/stack.yaml (`docker compose run --rm init` does)",
                self._user,
                extra={"reason": reason},
            )

    async def _pause(self) -> None:
        await asyncio.sleep(AWAY_PAUSES.jittered(self._failures) if self._failures else self._seconds)
