"""A duty that one of all replicas of the api service has: the one that holds its lease."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable

from shared import ids
from shared.errors import ConfigError, LeaseLost, StoreRefused, TransientError
from shared.stages.lease import Claims, Lease
from shared.store.objects import ObjectStore

log = logging.getLogger(__name__)


def new_owner() -> str:
    """The name of this process in claims."""
    return f"{socket.gethostname()}/{os.getpid()}/{ids.derive(time.time_ns(), chars=6)}"


class Duty:
    """The duty whose claim is `key`. `name`: who has it, for the log."""

    def __init__(self, objects: ObjectStore, key: str, *, name: str, owner: str, lease_seconds: float) -> None:
        self._key = key
        self._name = name
        self._owner = owner
        self._seconds = lease_seconds
        self._claims = Claims(objects.for_leases(), grace=lease_seconds / 3)

    async def take(self) -> Lease | None:
        """The lease; None: another replica has it.

        Raises:
            StoreUnavailable, ConfigError, StoreRefused: the store does not answer, or refuses it.
        """
        return await self._claims.take(self._key, self._owner, self._seconds)

    async def hold(self, lease: Lease, work: Callable[[Lease], Awaitable[None]]) -> None:
        """Await `work(lease)` while the lease is held, then give it back."""
        try:
            async with lease.held():
                await work(lease)
        except LeaseLost:
            log.warning("the %s has lost its lease", self._name)
        finally:
            # one that cannot be given back expires by itself
            with contextlib.suppress(LeaseLost, TransientError, ConfigError, StoreRefused):
                await lease.give_back()
