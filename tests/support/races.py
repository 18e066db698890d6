"""Races of conditional writes, for any store: of many writers with the same condition, exactly one must win."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.errors import AlreadyExists, Conflict, StoreUnavailable
from shared.retry import retry
from shared.store.objects import ObjectStore

RACERS = 32
ROUNDS = 30
LANES = 4  # rounds at the same time, each on its own object


async def create_once(store: ObjectStore, prefix: str, racers: int = RACERS, rounds: int = ROUNDS) -> None:
    """`rounds` times, `racers` writers create one object, each with bytes of its own."""

    async def race(key: str, racer: int) -> bool:
        try:
            await _answered(lambda: store.create(key, f"racer {racer}".encode()))
        except AlreadyExists:
            return False
        return True

    async def lane(number: int) -> None:
        for round_ in range(number, rounds, LANES):
            key = f"{prefix}/create-{round_}"
            won = await asyncio.gather(*(race(key, racer) for racer in range(racers)))
            assert sum(won) == 1, f"round {round_}: {sum(won)} of {racers} writers were told that they created it"
            found = await store.get(key)
            assert found is not None and found[0] == f"racer {won.index(True)}".encode(), f"round {round_}: other bytes"

    await _run(lane)


async def compare_and_swap(store: ObjectStore, prefix: str, racers: int = RACERS, rounds: int = ROUNDS) -> None:
    """`rounds` times, `racers` writers replace the same version of one object."""

    async def race(key: str, bytes_: bytes, etag: str) -> str | None:
        try:
            return await _answered(lambda: store.replace(key, bytes_, etag))
        except Conflict:
            return None

    async def lane(number: int) -> None:
        key = f"{prefix}/swap-{number}"
        etag = await store.create(key, b"start")
        for round_ in range(number, rounds, LANES):
            etags = await asyncio.gather(*(race(key, f"{round_}/{racer}".encode(), etag) for racer in range(racers)))
            winners = [(racer, new) for racer, new in enumerate(etags) if new]
            assert len(winners) == 1, f"round {round_}: {len(winners)} of {racers} were told that they replaced it"
            racer, etag = winners[0]
            assert await store.get(key) == (f"{round_}/{racer}".encode(), etag), f"round {round_}: other bytes"

    await _run(lane)


async def _answered(write: Callable[[], Awaitable[str]]) -> str:
    """Repeat a write until the store answers: with SeaweedFS the last of 32 losing writers waits for ten seconds, which
    is longer than a call may take. A write that had its effect is not an error when it is repeated."""
    return await retry(write, on=StoreUnavailable, pauses=[0.1] * 5)


async def _run(lane: Callable[[int], Awaitable[None]]) -> None:
    await asyncio.gather(*map(lane, range(LANES)))
