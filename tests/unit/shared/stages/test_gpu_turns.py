"""The turns of a GPU, step by step: who may fill its memory, and who is next."""

from __future__ import annotations

import pytest

from shared.errors import LeaseLost, StoreUnavailable
from shared.stages.gpu_turns import FIRST_RIGHT_SECONDS, INFERENCE, SERVING_SECONDS, GpuTurns
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore

LEASE = 15.0


@pytest.fixture
def ledger(objects: FakeStore) -> FakeStore:
    return objects


@pytest.fixture
def turns(ledger: FakeStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> GpuTurns:
    monkeypatch.setattr("shared.stages.lease._monotonic", clock)
    return GpuTurns(ledger, "0", lease_seconds=LEASE)


async def test_a_trainer_gets_the_gpu_only_when_inference_gave_it_up(turns: GpuTurns) -> None:
    serving = await turns.for_serving()
    assert serving is not None
    assert not await turns.wanted()

    assert await turns.for_training("trainer/a") is None
    assert await turns.wanted()
    await turns.release(serving)

    assert await turns.for_serving() is None  # it was given up for the one who wants it
    assert await turns.for_training("trainer/a") is not None
    assert await turns.for_serving() is None


async def test_after_a_training_inference_is_first_also_when_more_trainers_wait(turns: GpuTurns, clock: Clock) -> None:
    first = await turns.for_training("trainer/a")
    assert first is not None
    assert await turns.for_training("trainer/b") is None
    await turns.release(first)

    clock.now += FIRST_RIGHT_SECONDS - 1
    assert await turns.for_training("trainer/b") is None
    serving = await turns.for_serving()

    assert serving is not None
    assert await turns.for_training("trainer/b") is None


async def test_without_an_inference_service_trainings_follow_each_other(turns: GpuTurns, clock: Clock) -> None:
    first = await turns.for_training("trainer/a")
    assert first is not None
    await turns.release(first)

    clock.now += FIRST_RIGHT_SECONDS

    assert await turns.for_training("trainer/b") is not None


async def test_a_dead_trainer_loses_the_gpu_to_inference(turns: GpuTurns, clock: Clock) -> None:
    dead = await turns.for_training("trainer/a")
    assert dead is not None
    assert await turns.for_serving() is None

    clock.now += LEASE
    assert await turns.for_serving() is None  # it may be alive: the ledger may have been away
    clock.now += LEASE / 3

    assert await turns.for_serving() is not None
    with pytest.raises(LeaseLost):
        await turns.release(dead)


async def test_a_trainer_that_dies_while_it_waits_is_not_waited_for(turns: GpuTurns, clock: Clock) -> None:
    serving = await turns.for_serving()
    assert serving is not None
    await turns.for_training("trainer/a")
    await turns.release(serving)
    assert await turns.for_serving() is None

    clock.now += LEASE

    assert await turns.for_serving() is not None


async def test_a_trainer_that_waits_stays_wanted(turns: GpuTurns, clock: Clock) -> None:
    await turns.for_serving()
    for _ in range(20):
        assert await turns.for_training("trainer/a") is None
        assert await turns.wanted()
        clock.now += LEASE / 4


async def test_a_trainer_that_has_its_turn_no_longer_counts_as_waiting(turns: GpuTurns) -> None:
    serving = await turns.for_serving()
    assert serving is not None
    await turns.for_training("trainer/a")
    await turns.release(serving)

    training = await turns.for_training("trainer/a")

    assert training is not None
    assert not await turns.wanted()


async def test_a_dead_inference_service_keeps_the_gpu_until_its_turn_runs_out(turns: GpuTurns, clock: Clock) -> None:
    """A vLLM that is not its child process still holds the memory."""
    await turns.for_serving()

    clock.now += SERVING_SECONDS - 1
    assert await turns.for_training("trainer/a") is None
    clock.now += 1
    assert await turns.for_training("trainer/a") is None  # it may be alive: the ledger may have been away
    clock.now += LEASE / 3

    assert await turns.for_training("trainer/a") is not None


async def test_a_restarted_inference_service_has_its_turn_at_once(turns: GpuTurns) -> None:
    zombie = await turns.for_serving()
    assert zombie is not None
    await turns.for_training("trainer/a")

    serving = await turns.for_serving()

    assert serving is not None and serving.claim.owner == INFERENCE
    with pytest.raises(LeaseLost):
        await turns.release(zombie)
    assert await turns.for_training("trainer/a") is None


async def test_at_the_start_a_training_that_waits_already_goes_first(turns: GpuTurns, ledger: FakeStore) -> None:
    await ledger.create("gpu/0/wanted.json", b'{"owner": "trainer/a", "attempt": 1, "expires": 1000010.0}')

    assert await turns.for_serving() is None
    assert await turns.for_training("trainer/a") is not None


async def test_every_gpu_has_turns_of_its_own(turns: GpuTurns, ledger: FakeStore, clock: Clock) -> None:
    await turns.for_serving()
    other = GpuTurns(ledger, "1", lease_seconds=LEASE)

    assert await other.for_training("trainer/a") is not None
    assert {key for key in ledger.held if not key.startswith("gpu/")} == set()


async def test_nobody_starts_while_the_ledger_is_away(turns: GpuTurns, ledger: FakeStore) -> None:
    ledger.available = False

    with pytest.raises(StoreUnavailable):
        await turns.for_training("trainer/a")
    with pytest.raises(StoreUnavailable):
        await turns.for_serving()
