"""Leases: who works on a stage, until when, and what ends it. See docs/architecture.md, "The stage protocol".

Expiry is by the object store's clock, on which all processes agree; an owner measures its own time by the monotonic
clock. At every moment an owner is in one of three states:

    certain    nobody else may have the claim
    in doubt   the lease has run out by the monotonic clock, because the store gives no answer. The owner works on in
               its own attempt folder, and does nothing that others see, until one renewal decides
    lost       the store said that the claim is another's, or refused us: the work stops

There are never two owners that are certain. A stage has one result anyway, because the result is created once, and
`attempt` grows with every owner, so each owner writes into a folder of its own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from shared.errors import AlreadyExists, Cancelled, Conflict, LeaseLost, Paused, StoreUnavailable
from shared.events import Claim
from shared.stages.ledger import Ledger
from shared.tasks import in_background, wait_for_event

log = logging.getLogger(__name__)

RENEWAL_PAUSE = 1.0
"""Seconds between two tries at a renewal while the store gives no answer. An owner in doubt must be back before the
grace of its successor is over."""


class Claims:
    """Takes claims, for any owner of this process."""

    def __init__(self, ledger: Ledger, *, grace: float) -> None:
        """`grace`: seconds between the first look that finds a claim expired and the one that takes it over.

        After an outage of the store its owners are in doubt, but alive; the grace gives them the first renewal. It also
        covers what the estimates of the store's clock differ by.
        """
        self._ledger = ledger
        self._grace = grace
        self._expired: dict[str, tuple[str, float]] = {}
        """The ETag of each claim that was found expired, and when it was first found so (monotonic)."""

    async def take(self, key: str, owner: str, seconds: float) -> Lease | None:
        """Claim for `seconds`. None: another owner has the claim, or nobody may have it yet (`Claim.not_before`)."""
        found = await self._ledger.get(key)
        began, now = _monotonic(), self._ledger.now()
        try:
            if found is None:
                claim, previous = Claim(owner=owner, attempt=1, expires=now + seconds), None
                etag = await self._ledger.create(key, _json(claim))
            else:
                previous = Claim.model_validate_json(found[0])
                if previous.not_before > now or not self._is_free(key, found[1], previous, owner, now):
                    return None
                claim = _succeeding(previous, owner, now + seconds)
                etag = await self._ledger.replace(key, _json(claim), found[1])
        except (AlreadyExists, Conflict):
            return None
        self._expired.pop(key, None)
        return Lease(self._ledger, key, claim, etag, seconds, began + seconds, previous)

    def _is_free(self, key: str, etag: str, held: Claim, owner: str, now: float) -> bool:
        # a claim in our name comes from a write whose reply was lost
        if held.given_back or held.owner == owner:
            return True
        if held.expires > now:
            self._expired.pop(key, None)
            return False
        if self._expired.get(key, ("", 0.0))[0] != etag:
            self._expired[key] = (etag, _monotonic())
        return _monotonic() - self._expired[key][1] >= self._grace


@dataclass
class Lease:
    """A claim that this owner holds, and its ETag."""

    ledger: Ledger
    key: str
    claim: Claim
    etag: str
    seconds: float
    """For how long a renewal holds the claim."""
    certain_until: float
    """The end of the lease by the monotonic clock."""
    previous: Claim | None = None
    """The claim before this one."""
    abandoned: bool = False
    """The body of `held` was cancelled, because the claim was lost or the user wants the job to end; not because the
    user wants it to rest."""
    _renewed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def in_doubt(self) -> bool:
        """Whether another owner may have the claim by now."""
        return _monotonic() >= self.certain_until

    async def certain(self) -> None:
        """Return as soon as nobody else may have the claim. If it is lost, the body of `held` is cancelled here."""
        while self.in_doubt:
            self._renewed.clear()
            await self._renewed.wait()

    async def renew(self) -> None:
        """Hold the claim for another `seconds`.

        Raises:
            LeaseLost: another owner has the claim.
        """
        began = _monotonic()
        await self._swap({"expires": self.ledger.now() + self.seconds})
        self.certain_until = began + self.seconds
        self._renewed.set()

    async def give_back(self, *, pause: float = 0.0, **more: Any) -> None:
        """Let any owner claim, after `pause` seconds. `more`: new values of the claim's other fields.

        Raises:
            LeaseLost: another owner has the claim.
        """
        now = self.ledger.now()
        self.certain_until = float("-inf")
        await self._swap({"expires": now, "given_back": True, "not_before": now + pause if pause else 0.0, **more})

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
        self, *, bell: asyncio.Event | None = None, check: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[None]:
        """Keep the claim while the body runs, by renewing it every third of its seconds.

        `check` is awaited after each renewal, which comes at once when `bell` is set: it looks for what the user asked
        for. When it raises `Paused`, the body is cancelled as when the service stops: the claim is kept until the body
        has ended, so that it can keep what it has reached.

        Raises:
            LeaseLost: another owner has the claim; or the store refused us, or answered what nobody expects, so that
                nobody knows.
            Cancelled, Paused: `check` raised it.
        """
        body = asyncio.current_task()
        assert body is not None
        bell = bell or asyncio.Event()
        ended_by: list[Exception] = []

        async def keep() -> None:
            pause = self.seconds / 3
            while True:
                await wait_for_event(bell, pause)
                bell.clear()
                try:
                    await self.renew()
                    if check is not None:
                        await check()
                    pause = self.seconds / 3
                except StoreUnavailable:
                    pause = min(RENEWAL_PAUSE, self.seconds / 10)
                except Paused as error:
                    pause = self.seconds / 3
                    if not ended_by:  # the body may still be ending
                        end(error, abandoned=False)
                except (LeaseLost, Cancelled) as error:
                    return end(error)
                except Exception as error:
                    log.error("the lease cannot be kept", exc_info=error)
                    return end(LeaseLost(self.key))

        def end(error: Exception, *, abandoned: bool = True) -> None:
            ended_by.append(error)
            self.abandoned = abandoned
            body.cancel()

        try:
            async with in_background(keep()):
                yield
        except asyncio.CancelledError:
            # `keep` cancelled the body so often; what is left was the service
            if ended_by and [body.uncancel() for _ in ended_by][-1] == 0:
                raise ended_by[-1] from None
            raise


def _succeeding(held: Claim, owner: str, expires: float) -> Claim:
    """The claim of the next attempt. An owner that is gone without giving back counts as dead."""
    died = not held.given_back and held.owner != owner
    update = {
        "owner": owner,
        "attempt": held.attempt + 1,
        "expires": expires,
        "given_back": False,
        "not_before": 0.0,
        "waiting_for": None,
        "paused": False,
        "deaths": held.deaths + died,
    }
    return held.model_copy(update=update)


def _monotonic() -> float:
    return asyncio.get_running_loop().time()


def _json(claim: Claim) -> bytes:
    return claim.model_dump_json().encode()
