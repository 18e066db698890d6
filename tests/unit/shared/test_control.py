"""What users want of a job, whoever asks first, and however many ask at once."""

from __future__ import annotations

import asyncio
import itertools
import random

import pytest

from shared import control
from tests.support.fakes.store import FakeStore

JOB = "ftjob-1"


async def test_a_job_is_paused_until_the_last_pause_is_over() -> None:
    store = FakeStore()
    assert not (await control.read(store, JOB)).paused
    assert await control.resume(store, JOB) is None, "it is not paused"
    for number in range(1, 13):
        assert await control.pause(store, JOB) == number
        assert await control.pause(store, JOB) == number, "asking again asks once"
        assert (await control.read(store, JOB)).paused
        assert await control.resume(store, JOB) == number
        assert not (await control.read(store, JOB)).paused
        assert await control.resume(store, JOB) is None


async def test_a_cancel_wins_over_a_pause() -> None:
    store = FakeStore()
    await control.pause(store, JOB)
    await control.cancel(store, JOB)
    wanted = await control.read(store, JOB)
    assert (wanted.cancelled, wanted.paused) == (True, False)
    assert await control.pause(store, JOB) is await control.resume(store, JOB) is None


async def test_one_listing_tells_everything() -> None:
    store = FakeStore()
    await control.pause(store, JOB)
    store.calls.clear()
    await control.read(store, JOB)
    assert store.calls == [("list", f"jobs/{JOB}/control/")]


@pytest.mark.parametrize(
    "name", ["pause-x.json", "pause-.json", "pause.json", "pause-²", "stop-1.json", "pause--1.json"]
)
async def test_what_is_no_wish_is_passed_over(name: str) -> None:
    store = FakeStore()
    store.add(f"jobs/{JOB}/control/{name}", b"{}")
    assert await control.read(store, JOB) == control.Control()


@pytest.mark.parametrize("seed", range(50))
async def test_clients_that_race_end_in_one_state(seed: int) -> None:
    """Every answer is true at some moment while the client waited for it; numbers have no gaps."""
    rng = random.Random(seed)

    class Slow(FakeStore):
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            for _ in range(rng.randrange(6)):
                await asyncio.sleep(0)

    store = Slow()

    async def client() -> None:
        for _ in range(8):
            await (control.pause if rng.random() < 0.5 else control.resume)(store, JOB)

    await asyncio.gather(*(client() for _ in range(4)))
    wanted = await control.read(store, JOB)
    assert list(wanted.pauses) == sorted(wanted.pauses), "in order"
    assert set(wanted.pauses) == set(range(1, wanted.last + 1))
    assert set(wanted.resumes) in (set(wanted.pauses), set(wanted.pauses) - {wanted.last})
    assert wanted.paused == (wanted.last not in wanted.resumes)
    times = [at for n in sorted(wanted.pauses) for at in (wanted.pauses[n], wanted.resumes.get(n)) if at is not None]
    assert all(first <= second for first, second in itertools.pairwise(times))
