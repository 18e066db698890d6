"""Works on all sweeps: of all replicas of the api service, the one that holds the lease. Whatever goes wrong with it,
the api goes on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from services.api.domain.sweeps.documents import CLAIM
from services.api.duty import Duty
from services.api.sweeps.controller import Controller
from services.api.sweeps.store import SweepStore
from shared.errors import ConfigError, LeaseLost, StoreRefused, TransientError
from shared.retry import Backoff
from shared.stages.lease import Lease
from shared.store.objects import ObjectStore
from shared.tasks import wait_for_event

log = logging.getLogger(__name__)

LEASE_SECONDS = 20.0
"""How long a sweep waits at most for another replica when the one that works on it is gone."""
TICK_SECONDS = 1.0
"""Between two looks at the sweeps under way."""
ASK_SECONDS = 5.0
"""How often a replica asks for the lease while another one has it."""
LOOK_SECONDS = 60.0
"""How often the sweeps are listed while none is known to be under way. The replica that takes the request for one knows
it at once."""
AWAY_PAUSES = Backoff(1.0, 60.0)


class SweepRunner:
    """Runs beside the api until it is cancelled, and raises nothing."""

    def __init__(
        self,
        objects: ObjectStore,
        store: SweepStore,
        controller: Controller,
        wanted: asyncio.Event,
        *,
        owner: str,
        tick_seconds: float = TICK_SECONDS,
        look_seconds: float = LOOK_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """`wanted` is set when a sweep is made, or cancelled, by this process."""
        self._store = store
        self._controller = controller
        self._wanted = wanted
        self._tick_seconds = tick_seconds
        self._look_seconds = look_seconds
        self._duty = Duty(objects, CLAIM, name="runner of sweeps", owner=owner, lease_seconds=lease_seconds)
        self._failures = 0
        """Rounds in a row in which the store was away."""
        self._refusal = ""
        """What the store refuses, as it was logged."""
        self._under_way = False
        self._stuck = False
        """Whether a sweep could not go on in the last round."""

    async def run(self) -> None:
        """Work whenever a sweep is under way and the lease is ours."""
        while True:
            self._wanted.clear()
            fine = await self._guarded(self._term)
            await self._pause(fine, ASK_SECONDS if self._under_way else self._look_seconds)

    async def _term(self) -> None:
        """Work for as long as the lease is held and a sweep is under way; return at once if there is none."""
        self._under_way = bool(await self._store.under_way())
        lease = await self._duty.take() if self._under_way else None
        if lease is not None:
            await self._duty.hold(lease, self._work)

    async def _work(self, lease: Lease) -> None:
        while self._under_way:
            self._wanted.clear()
            fine = await self._guarded(partial(self._round, lease))
            await self._pause(fine and not self._stuck, self._tick_seconds)

    async def _round(self, lease: Lease) -> None:
        sweeps = await self._store.under_way()
        self._under_way = bool(sweeps)
        self._stuck = False
        for documents in sweeps:
            await lease.certain()
            # what is wrong with one sweep must not stop the others
            self._stuck |= not await self._guarded(partial(self._controller.step, documents))

    async def _guarded(self, step: Callable[[], Awaitable[None]]) -> bool:
        """Await `step()`, whatever it raises. Whether it raised nothing."""
        try:
            await step()
            return True
        except LeaseLost:
            raise
        except TransientError as error:
            if not self._failures:
                log.warning("sweeps wait", extra={"reason": type(error).__name__})
        except (ConfigError, StoreRefused) as error:
            if str(error) != self._refusal:
                self._refusal = str(error)
                log.error("the object store refuses sweeps to the api service", extra={"reason": str(error)})
        except Exception:
            log.exception("a sweep cannot go on, and is tried again")
        return False

    async def _pause(self, fine: bool, seconds: float) -> None:
        self._failures = 0 if fine else self._failures + 1
        if fine:
            self._refusal = ""  # what is refused from here on is told again
        await wait_for_event(self._wanted, seconds if fine else AWAY_PAUSES.jittered(self._failures))
