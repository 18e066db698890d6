"""What ends a lease and what does not, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from shared.errors import ConfigError, LeaseLost, StoreUnavailable
from shared.stages.lease import Claims, Lease
from tests.sim.loop import run
from tests.support.fakes.store import Disk, FakeStore

LEASE = 15.0
GRACE = 5.0
KEY = "claim.json"


class Store(FakeStore):
    """A store in virtual time. `failure` is raised by every call of this client; `other` clients see the same disk."""

    failure: Exception | None = None

    def __init__(self, disk: Disk | None = None) -> None:
        super().__init__(clock=asyncio.get_running_loop().time, disk=disk)

    async def before(self, operation: str, key: str) -> None:
        if self.failure is not None:
            raise self.failure
        await super().before(operation, key)


async def take(store: Store, owner: str = "one") -> Lease:
    lease = await Claims(store, grace=GRACE).take(KEY, owner, LEASE)
    assert lease is not None
    return lease


async def body(lease: Lease, seconds: float) -> float:
    """Hold the lease for `seconds`. Returns how long that took until it ended or was ended."""
    began = asyncio.get_running_loop().time()
    try:
        async with lease.held():
            await asyncio.sleep(seconds)
    finally:
        lease.took = asyncio.get_running_loop().time() - began  # type: ignore[attr-defined]
    return seconds


def virtual(test: Coroutine[Any, Any, None]) -> None:
    run(test)


@pytest.mark.parametrize("error", [ConfigError("AccessDenied"), RuntimeError("nobody expects it")])
def test_an_owner_that_the_store_refuses_stops_at_its_next_renewal(error: Exception) -> None:
    async def main() -> None:
        store = Store()
        lease = await take(store)
        store.failure = error
        with pytest.raises(LeaseLost):
            await body(lease, 7200)
        assert lease.took < LEASE / 3 + 1  # type: ignore[attr-defined]
        assert lease.abandoned

    virtual(main())


def test_an_outage_ends_no_work_but_puts_its_owner_in_doubt() -> None:
    async def main() -> None:
        store = Store()
        lease = await take(store)
        seen: list[float] = []

        async def act() -> None:
            await lease.certain()
            seen.append(asyncio.get_running_loop().time())

        async with lease.held():
            began = asyncio.get_running_loop().time()
            store.failure = StoreUnavailable("away")
            await asyncio.sleep(LEASE - 0.1)
            assert not lease.in_doubt
            await asyncio.sleep(45)
            assert lease.in_doubt
            acting = asyncio.create_task(act())
            await asyncio.sleep(60)
            assert not seen
            store.failure = None
            await acting
            assert not lease.in_doubt
            assert seen[0] - began == pytest.approx(LEASE - 0.1 + 105, abs=2.5)

    virtual(main())


def test_an_owner_in_doubt_has_the_first_right_after_an_outage() -> None:
    async def main() -> None:
        store, other = Store(), Store()
        other.disk = store.disk
        lease = await take(store)
        claims = Claims(other, grace=GRACE)
        async with lease.held():
            store.failure = other.failure = StoreUnavailable("away")
            await asyncio.sleep(120)
            store.failure = other.failure = None
            for _ in range(100):  # the successor asks as often as it can
                assert await claims.take(KEY, "two", LEASE) is None
                await asyncio.sleep(0.2)
            assert not lease.in_doubt

    virtual(main())


def test_an_owner_that_comes_back_too_late_is_lost_and_never_certain_again() -> None:
    async def main() -> None:
        store, other = Store(), Store()
        other.disk = store.disk
        lease = await take(store)
        certain = False

        async def act() -> None:
            nonlocal certain
            await lease.certain()
            certain = True

        with pytest.raises(LeaseLost):
            async with lease.held():
                store.failure = StoreUnavailable("only this one has no store")
                await asyncio.sleep(LEASE + 1)
                claims = Claims(other, grace=GRACE)
                assert await claims.take(KEY, "two", LEASE) is None
                await asyncio.sleep(GRACE)
                successor = await claims.take(KEY, "two", LEASE)
                assert successor is not None and not successor.in_doubt
                assert successor.claim.deaths == 1
                acting = asyncio.create_task(act())
                store.failure = None
                await asyncio.sleep(3600)
        acting.cancel()
        assert not certain

    virtual(main())


def test_a_claim_that_was_given_back_is_free_at_once_and_no_death() -> None:
    async def main() -> None:
        store = Store()
        lease = await take(store)
        await lease.give_back()
        successor = await take(store, "two")
        assert (successor.claim.attempt, successor.claim.deaths) == (2, 0)

    virtual(main())


def test_nobody_takes_a_claim_before_its_pause_is_over() -> None:
    async def main() -> None:
        store = Store()
        await (await take(store)).give_back(pause=30, waiting_for="the hub")
        claims = Claims(store, grace=GRACE)
        assert await claims.take(KEY, "two", LEASE) is None
        await asyncio.sleep(31)
        lease = await claims.take(KEY, "two", LEASE)
        assert lease is not None and lease.previous is not None
        assert (lease.previous.waiting_for, lease.claim.waiting_for) == ("the hub", None)

    virtual(main())
