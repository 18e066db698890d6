"""Leases: who works on a stage, until when, and what ends it. See docs/architecture.md, "The stage protocol".

A lease only avoids double work. Two owners may believe that they hold it (a clock jumps, a process is suspended); the
stage still has one result, because the result is created once. `attempt` grows with every owner, so each owner writes
into a folder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from shared.errors import AlreadyExists, Cancelled, Conflict, LeaseLost, StoreUnavailable
from shared.events import Claim
from shared.stages.ledger import Ledger
from shared.tasks import in_background, wait_for_event


@dataclass
class Lease:
    """A claim that this owner holds, and its ETag."""

    ledger: Ledger
    key: str
    claim: Claim
    etag: str

    @classmethod
    async def take(cls, ledger: Ledger, key: str, owner: str, now: float, seconds: float) -> Lease | None:
        """Claim for `seconds`. None: another owner has the claim, or nobody may have it yet (`Claim.not_before`)."""
        found = await ledger.get(key)
        try:
            if found is None:
                claim = Claim(owner=owner, attempt=1, expires=now + seconds)
                return cls(ledger, key, claim, await ledger.create(key, _json(claim)))
            held = Claim.model_validate_json(found[0])
            # a claim in our name comes from a write whose reply was lost
            if (held.owner != owner and held.expires > now) or held.not_before > now:
                return None
            claim = held.model_copy(
                update={"owner": owner, "attempt": held.attempt + 1, "expires": now + seconds, "not_before": 0.0}
            )
            return cls(ledger, key, claim, await ledger.replace(key, _json(claim), found[1]))
        except (AlreadyExists, Conflict):
            return None

    async def renew(self, expires: float) -> None:
        """Hold the claim until `expires`, in seconds since the epoch.

        Raises:
            LeaseLost: another owner has the claim.
        """
        await self._swap({"expires": expires})

    async def give_back(self, *, not_before: float = 0.0, **counts: int) -> None:
        """Let any owner claim from `not_before` on (seconds since the epoch). `counts`: new values of `bugs` and
        `failures`."""
        await self._swap({"expires": 0.0, "not_before": not_before, **counts})

    async def _swap(self, update: dict[str, Any]) -> None:
        claim = self.claim.model_copy(update=update)
        try:
            self.etag = await self.ledger.replace(self.key, _json(claim), self.etag)
        except Conflict:
            # an earlier write of ours may have taken effect although its reply, with the ETag, was lost
            found = await self.ledger.get(self.key)
            held = Claim.model_validate_json(found[0]) if found else None
            if found is None or held is None or (held.owner, held.attempt) != (claim.owner, claim.attempt):
                raise LeaseLost(self.key) from None
            try:
                self.etag = await self.ledger.replace(self.key, _json(claim), found[1])
            except Conflict:
                raise LeaseLost(self.key) from None
        self.claim = claim

    @asynccontextmanager
    async def held(
        self,
        seconds: float,
        clock: Callable[[], float],
        *,
        bell: asyncio.Event | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
    ) -> AsyncIterator[None]:
        """Keep the claim while the body runs, by renewing it every third of `seconds`.

        `check` is awaited before each renewal, and as soon as `bell` is set: it looks for what the user asked for.

        Raises:
            LeaseLost: another owner has the claim, or the ledger was away until the lease ran out.
            Cancelled: `check` raised it.
        """
        body = asyncio.current_task()
        assert body is not None
        bell = bell or asyncio.Event()
        ended_by: list[Exception] = []

        async def keep() -> None:
            try:
                while True:
                    await wait_for_event(bell, seconds / 3)
                    bell.clear()
                    try:
                        if check is not None:
                            await check()
                        await self.renew(clock() + seconds)
                    except StoreUnavailable:
                        if clock() >= self.claim.expires:
                            raise LeaseLost(self.key) from None
            except (LeaseLost, Cancelled) as error:
                ended_by.append(error)
                body.cancel()

        try:
            async with in_background(keep()):
                yield
        except asyncio.CancelledError:
            if ended_by and body.uncancel() == 0:  # `keep` cancelled the body, not the service
                raise ended_by[0] from None
            raise


def _json(claim: Claim) -> bytes:
    return claim.model_dump_json().encode()
