"""Checkpoints on their way to the store: what a slow store, the turn of a GPU and the end of the service do to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.trainer.domain.plan import parse_plan
from services.trainer.job import uploads
from shared.errors import StoreRefused
from shared.retry import Backoff
from shared.settings import Settings
from shared.stages.gpu_turns import GpuTurns
from shared.store import patience
from tests.support.data.jobs import make_attempt, make_job
from tests.support.fakes.clock import Clock
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.trainer.job.test_found import add
from tests.unit.trainer.test_outages import BASE, FakeTraining, Trainer

JOB = "ftjob-1"


class Slow(FakeStore):
    """A store in which the uploads that `slow` names hang while `open` is not set."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.open = asyncio.Event()
        self.slow: Callable[[str], bool] = lambda key: False
        self.hanging: list[str] = []

    async def before(self, operation: str, key: str) -> None:
        await super().before(operation, key)
        if operation == "put" and self.slow(key):
            self.hanging.append(key)
            await self.open.wait()

    def for_leases(self) -> FakeStore:
        return FakeStore(self.bucket, self._clock, self.disk)

    def buried(self) -> list[str]:
        prefix = f"deleted/checkpoints/{JOB}-"
        return sorted(key.removeprefix(prefix).removesuffix(".json") for key in self.held if key.startswith(prefix))

    def whole(self, place: str) -> bool:
        return f"jobs/{JOB}/trainer/attempt-{place}/manifest.json" in self.held


@pytest.fixture
def store(clock: Clock) -> Slow:
    return Slow(clock=clock)


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr("services.trainer.work.TrainingProcess", fake)
    monkeypatch.setattr(patience, "PAUSES", Backoff(0.001, 0.002))
    return fake


def make_trainer(store: FakeStore, folder: Path, *, number: int = 1, **settings: Any) -> Trainer:
    trainer = Trainer(store, folder)
    given = {"gpu": "cpu", "work_dir": folder, **settings.pop("trainer", {})}
    trainer.work._settings = Settings.model_validate({"model": {"id": BASE}, "trainer": given, **settings})
    trainer.attempt, trainer.progress = make_attempt(
        make_job(base=BASE), "trainer", number=number, request=trainer.attempt.request, claim=trainer.claim
    )
    return trainer


async def begun(trainer: Trainer, training: FakeTraining) -> asyncio.Task[Any]:
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    return running


# --- what is superseded


@pytest.mark.parametrize(("keep", "buried"), [(1, ["1-1", "1-2"]), (2, ["1-1"])])
async def test_a_state_is_buried_when_a_newer_one_is_in_the_store(
    store: Slow, training: FakeTraining, tmp_path: Path, keep: int, buried: list[str]
) -> None:
    trainer = make_trainer(store, tmp_path, trainer={"keep_checkpoints": keep})
    running = await begun(trainer, training)
    training.checkpoint(1)
    await until(lambda: store.whole("1/resume/step-1"), "the first is uploaded")
    store.slow = lambda key: key.endswith("step-2/manifest.json")
    training.checkpoint(2)
    await until(lambda: store.hanging, "the second is about to be whole")
    assert store.buried() == []
    store.open.set()
    await until(lambda: store.whole("1/resume/step-2"), "the second is uploaded")
    training.checkpoint(3)
    await until(lambda: store.buried() == buried, "what is superseded is buried")
    tombstone = json.loads(store.held[f"deleted/checkpoints/{JOB}-1-1.json"].data)
    assert tombstone["prefix"] == f"{trainer.attempt.prefix}resume/step-1/"
    assert tombstone["at"] == store.now()
    assert "step" in tombstone["reason"]
    await until(lambda: not list(training.out.glob("resume/*")), "the disk is free")
    training.end()
    completed = await running
    assert completed.checkpoints == ()
    assert store.buried() == buried, "what is left is the janitor's, who knows that the result is there"


async def test_what_earlier_attempts_left_is_buried_once_this_one_has_a_state_of_its_own(
    store: Slow, training: FakeTraining, tmp_path: Path
) -> None:
    for place in ("1/resume/step-4", "2/resume/step-7"):
        add(store, place, job=JOB)
    add(store, "1/resume/step-9", job=JOB, whole=False)
    running = await begun(make_trainer(store, tmp_path, number=3), training)
    training.checkpoint(7, listed=True)
    await until(lambda: store.whole("3/checkpoints/step-7"), "a listed one is uploaded")
    assert store.buried() == []
    training.checkpoint(8)
    await until(lambda: store.buried() == ["1-4", "1-9", "2-7"], "all of them are buried")
    training.end()
    await running


async def test_an_attempt_in_doubt_buries_nothing(store: Slow, training: FakeTraining, tmp_path: Path) -> None:
    """A successor may be continuing from what it would bury."""
    trainer = make_trainer(store, tmp_path)
    running = await begun(trainer, training)
    training.checkpoint(1)
    await until(lambda: store.whole("1/resume/step-1"), "the first is uploaded")
    trainer.claim.sure.clear()
    asked = trainer.claim.asked
    training.checkpoint(2)
    await until(lambda: store.whole("1/resume/step-2") and trainer.claim.asked > asked, "it asks for certainty")
    assert store.buried() == []
    trainer.claim.sure.set()
    await until(lambda: store.buried() == ["1-1"], "it is buried")
    training.end()
    await running


async def test_a_store_that_forbids_tombstones_costs_only_space(training: FakeTraining, tmp_path: Path) -> None:
    class Forbids(Slow):
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if operation == "create":
                raise StoreRefused("a test said so")

    store = Forbids()
    running = await begun(make_trainer(store, tmp_path), training)
    for step in (1, 2, 3):
        training.checkpoint(step)
        await until(lambda step=step: store.whole(f"1/resume/step-{step}"), "it is uploaded")  # type: ignore[misc]
    training.end()
    await running


async def test_where_the_newest_state_vanishes_while_it_is_fetched_its_successor_is_found(
    training: FakeTraining, tmp_path: Path, clock: Clock
) -> None:
    """The attempt before lives: it has just replaced its state, and the janitor was quick."""

    class Replaced(Slow):
        async def before(self, operation: str, key: str) -> None:
            await super().before(operation, key)
            if operation == "read" and key.endswith("resume/step-4/state.json"):
                for gone in [key for key in self.held if "resume/step-4/" in key]:
                    del self.held[gone]
                add(self, "1/resume/step-6", job=JOB)

    store = Replaced(clock=clock)
    for step in (2, 4):
        add(store, f"1/resume/step-{step}", job=JOB)
    running = await begun(make_trainer(store, tmp_path, number=2), training)
    plan = parse_plan((training.out.parent / "plan.json").read_bytes())
    assert plan.resume_from is not None and plan.resume_from.endswith("step-6")
    training.end()
    await running


# --- the queue


async def test_of_the_states_that_wait_only_the_newest_is_uploaded_and_of_the_listed_all(
    store: Slow, training: FakeTraining, tmp_path: Path
) -> None:
    trainer = make_trainer(store, tmp_path)
    running = await begun(trainer, training)
    store.slow = lambda key: "resume/step-1/" in key
    training.checkpoint(1)
    await until(lambda: store.hanging, "the first is on its way")
    for step in (2, 3, 4):
        training.checkpoint(step, listed=step < 4)
        training.checkpoint(step + 100)
    await until(lambda: not (training.out / "resume/step-103").exists(), "the older ones are dropped")
    assert (training.out / "resume/step-1").exists(), "what is on its way goes on"
    store.open.set()
    training.checkpoint(4, listed=True)
    await until(lambda: store.whole("1/checkpoints/step-4"), "all is uploaded")
    training.end()
    completed = await running
    assert not [key for key in store.held if "step-102/" in key or "step-103/" in key]
    assert store.whole("1/resume/step-1") and store.whole("1/resume/step-104")
    assert not [info for info in completed.checkpoints if "resume" in info.prefix]
    assert [event.step for event in trainer.progress if event.state == "checkpoint"] == [2, 3, 4]


async def test_a_training_that_is_done_uploads_no_state(store: Slow, training: FakeTraining, tmp_path: Path) -> None:
    """Not even the one that is on its way: the result is smaller, and makes it needless."""
    running = await begun(make_trainer(store, tmp_path), training)
    store.slow = lambda key: "resume/" in key
    training.checkpoint(1)
    await until(lambda: store.hanging, "a state is on its way")
    training.checkpoint(2, listed=True)
    training.checkpoint(2)
    training.end()
    completed = await running
    assert [info.step for info in completed.checkpoints] == [2]
    assert not store.whole("1/resume/step-1") and not store.whole("1/resume/step-2")


# --- the GPU's turn

ALTERNATE: dict[str, Any] = {"gpu": {"share": "alternate"}, "trainer": {"gpu": "0"}, "stage": {"poll_seconds": 0.005}}


@pytest.mark.parametrize("ends", ["well", "killed"])
async def test_a_store_that_is_slow_holds_the_gpu_no_longer_than_the_training(
    store: Slow, training: FakeTraining, tmp_path: Path, ends: str
) -> None:
    turns = GpuTurns(store.for_leases(), "0", lease_seconds=30)
    running = await begun(make_trainer(store, tmp_path, **ALTERNATE), training)
    assert await turns.for_serving() is None
    store.slow = lambda key: key.startswith("jobs/")
    training.checkpoint(1, listed=True)
    training.checkpoint(1)
    if ends == "well":
        training.end()
    else:
        training._code = -9  # type: ignore[assignment]
        training._messages.put_nowait(None)

    async def given_back() -> bool:
        return await turns.for_serving() is not None

    await until(given_back, "the turn is given back")
    assert not running.done() and training.killed
    store.open.set()
    if ends == "well":
        assert [info.step for info in (await running).checkpoints] == [1]
    else:
        with pytest.raises(RuntimeError, match="signal 9"):
            await running
        assert store.whole("1/checkpoints/step-1") and store.whole("1/resume/step-1")


# --- the end of the service, and of the claim, while something is on its way


async def test_a_service_that_stops_while_the_result_is_on_its_way_leaves_the_last_state(
    store: Slow, training: FakeTraining, tmp_path: Path
) -> None:
    running = await begun(make_trainer(store, tmp_path), training)
    store.slow = lambda key: "/adapter/" in key
    training.checkpoint(1, listed=True)
    training.checkpoint(1)
    training.end()
    await until(lambda: store.hanging, "the result is on its way")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert store.whole("1/checkpoints/step-1") and store.whole("1/resume/step-1")


async def test_a_service_that_stops_waits_for_a_slow_store_only_so_long(
    store: Slow, training: FakeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "GRACE_SECONDS", 0.05)
    running = await begun(make_trainer(store, tmp_path), training)
    store.slow = lambda key: True
    training.checkpoint(1)
    await until(lambda: store.hanging, "a state is on its way")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert training.terminated and training.killed
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("done", [True, False])
async def test_an_attempt_whose_claim_is_lost_while_it_uploads_ends_at_once(
    store: Slow, training: FakeTraining, tmp_path: Path, done: bool
) -> None:
    trainer = make_trainer(store, tmp_path)
    running = await begun(trainer, training)
    store.slow = lambda key: key.startswith("jobs/")
    training.checkpoint(1)
    if done:
        training.end()
    await until(lambda: store.hanging, "something is on its way")
    trainer.claim.abandoned = True
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(running, 5)
    assert not [key for key in store.held if "manifest" in key]
