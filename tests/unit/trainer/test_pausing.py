"""A job that is paused and resumed has the losses of an unbroken one, with the real runner and training process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.trainer.engine.report.reporter import Reporter
from services.trainer.engine.run import run
from services.trainer.job import telling
from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.process import TrainingProcess
from services.trainer.work import TrainWork
from shared import control
from shared.events import Claim, DatasetValidated, JobProgress, TrainingCompleted
from shared.settings import Settings
from shared.stages import outbox
from shared.stages.ledger import claim_key, job_key
from shared.stages.runner import StageRunner
from shared.stages.stage import STAGES
from tests.support.data.micro_base import support_rows
from tests.support.fakes.bus import FakeBus
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.trainer.test_work import DATASET, Run, children, settings, without_clock

pytestmark = pytest.mark.torch
__all__ = ["settings"]

HOUR = 3600.0
STEPS = 40


class Clock:
    """The store's clock, which can be moved on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


class Trainer:
    """A trainer service, and one job that it is asked for."""

    def __init__(self, settings: Settings, ahead: ProcessAhead) -> None:
        self.ahead = ahead
        self.clock = Clock()
        self.store = FakeStore(clock=self.clock)
        self.settings = settings
        self.run = Run(self.store, settings, job_id="ftjob-" + "p" * 24)
        self.job_id = self.run.job_id
        self.bus = FakeBus()

    async def ask(self) -> None:
        self.store.add(job_key(self.job_id), self.run.job.model_dump_json().encode())
        event = DatasetValidated(
            job_id=self.job_id,
            method="supervised",
            format="chat",
            train=await self.run._split("train", support_rows(40)),
            validation=await self.run._split("validation", support_rows(8, start=40)),
            report=DATASET,
        )
        result = outbox.result_of(self.job_id, "validate", 1, "t", "completed", event, self.clock())
        await outbox.commit(self.store, result)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[StageRunner]:
        """One life of the service."""
        self.bus = FakeBus()
        runner = StageRunner(
            STAGES["trainer"],
            TrainWork(self.store, self.settings, self.ahead),
            ledger=self.store,
            bus=self.bus,
            owner="trainer",
            settings=self.settings.stage,
        )
        task = asyncio.create_task(runner.run())
        try:
            yield runner
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def reaches(self, step: int) -> None:
        def reached() -> bool:
            return any((event.step or 0) >= step for event in self.bus.events(JobProgress))

        await until(reached, f"step {step}", seconds=120)

    def claim(self) -> Claim:
        return Claim.model_validate_json(self.store.held[claim_key(self.job_id, "trainer")].data)

    def states(self, attempt: int) -> set[int]:
        """The steps whose state that attempt has uploaded."""
        prefix = f"jobs/{self.job_id}/trainer/attempt-{attempt}/resume/step-"
        keys = [key for key in self.store.held if key.startswith(prefix) and key.endswith("manifest.json")]
        return {int(key.removeprefix(prefix).partition("/")[0]) for key in keys}

    async def result(self) -> TrainingCompleted:
        await until(lambda: self.bus.events(TrainingCompleted), "the training is completed", seconds=120)
        [completed] = self.bus.events(TrainingCompleted)
        assert isinstance(completed, TrainingCompleted)
        return completed


@pytest.fixture(autouse=True)
def every_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests pause and kill at steps that they choose."""
    monkeypatch.setattr(telling, "SHARE", 0.0)
    monkeypatch.setattr(telling, "SHORTEST_SECONDS", 0.0)


async def test_a_job_that_was_paused_for_an_hour_and_killed_has_the_losses_of_an_unbroken_one(
    settings: Settings, make_plan: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: ProcessAhead
) -> None:
    rng = random.Random(1)
    first, killed, second = sorted(rng.sample(range(2, STEPS - 15), 3))
    trainer = Trainer(settings, ahead)
    await trainer.ask()
    async with trainer.running() as runner:
        await trainer.reaches(first)
        assert await control.pause(trainer.store, trainer.job_id)
        runner.ring(trainer.job_id)
        await until(lambda: trainer.claim().paused, "it rests", seconds=60)
        assert not children(), "the GPU is free"
        assert max(trainer.states(1)) >= first, "what was reached is kept"
    trainer.clock.ahead += HOUR
    async with trainer.running():  # a new life of the service does not touch it
        assert trainer.claim().attempt == 1
        assert await control.resume(trainer.store, trainer.job_id)
        await trainer.reaches(killed)
        [child] = children()
        child.kill()
        await until(lambda: trainer.claim().attempt == 3, "it is tried again", seconds=60)
    async with trainer.running() as runner:
        await trainer.reaches(second)
        assert await control.pause(trainer.store, trainer.job_id)
        with monkeypatch.context() as patch:
            # killed in the middle of its checkpoint
            patch.setattr(TrainingProcess, "terminate", lambda process: process._process.kill())
            runner.ring(trainer.job_id)
            await until(lambda: trainer.claim().paused, "it rests", seconds=60)
        trainer.clock.ahead += HOUR
        assert await control.resume(trainer.store, trainer.job_id)
        runner.ring(trainer.job_id)
        completed = await trainer.result()

    claim = trainer.claim()
    assert (claim.bugs, claim.deaths, claim.failures) == (1, 0, 0), "only the kill counts"
    plan = make_plan(hyperparameters=trainer.run.spec.hyperparameters, lora=trainer.run.spec.lora)
    (tmp_path / "unbroken").mkdir()
    run(plan, tmp_path / "unbroken", Reporter(tmp_path / "unbroken", events=True), lambda: False)
    metrics = trainer.store.held[completed.artifacts["metrics.jsonl"].key].data.decode()
    assert without_clock(metrics) == without_clock((tmp_path / "unbroken" / "metrics.jsonl").read_text())
    weights = trainer.store.held[f"{completed.adapter.prefix}adapter_model.safetensors"].data
    assert weights == (tmp_path / "unbroken" / "adapter" / "adapter_model.safetensors").read_bytes()
    assert not children()
