"""What ends a training and what does not: a lost claim kills it, an outage of the store only delays its uploads."""

from __future__ import annotations

import asyncio
import errno
import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.trainer.engine.messages import AnyMessage, CheckpointWritten, ExitCode
from services.trainer.job.process import TrainingProcess
from services.trainer.job.uploads import GRACE_SECONDS
from services.trainer.work import ARTIFACTS, TrainWork, raise_for_exit_code
from shared import disk
from shared.errors import ConfigError, StoreUnavailable, TransientError
from shared.events import DatasetValidated, JobProgress, Split, TrainingCompleted
from shared.retry import Backoff
from shared.settings import Settings
from shared.stages.stage import Attempt
from shared.store import patience
from tests.support.data.jobs import NOWHERE, FakeClaim, make_attempt, make_job
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until

BASE = "org/micro"
RESULT = {
    "model": "m",
    "base": BASE,
    "method": "supervised",
    "rank": 8,
    "steps": 3,
    "total_steps": 3,
    "epochs": 1,
    "trained_tokens": 1,
    "train_loss": 1.0,
    "valid_loss": None,
    "saved_step": 3,
    "stopped_early": False,
    "overfitting": {"verdict": "unknown", "reason": "a test"},
    "hyperparameters": {},
    "checkpoints": [{"step": step, "prefix": f"checkpoints/step-{step}/"} for step in (1, 2, 3)],
    "train_examples": 1,
    "valid_examples": 0,
    "dropped_examples": 0,
    "truncated_examples": 0,
    "seconds": 1.0,
}


class FakeTraining:
    """A training process that does what the test says; `started` counts its starts."""

    def __init__(self) -> None:
        self.out = Path()
        self.started = 0
        self.pid = 0
        self.trace = ""
        self.terminated = False
        self.killed = False
        self._messages: asyncio.Queue[AnyMessage | None] = asyncio.Queue()
        self._code = ExitCode.DONE

    async def start(self, plan: Path, out: Path, **_: Any) -> FakeTraining:
        self.started += 1
        self.out = out
        (out / "adapter").mkdir(parents=True)
        return self

    def checkpoint(self, step: int, *, listed: bool = False) -> None:
        """Write a checkpoint."""
        path = f"{'checkpoints' if listed else 'resume'}/step-{step}"
        (self.out / path).mkdir(parents=True)
        files = (
            ("adapter_config.json", "adapter_model.safetensors") if listed else ("adapter.safetensors", "state.json")
        )
        for name in files:
            (self.out / path / name).write_text(f"{name} of {step}")
        self._messages.put_nowait(CheckpointWritten(at=0.0, path=path, step=step, listed=listed))

    def end(self) -> None:
        """Write the result and end."""
        (self.out / "adapter" / "adapter_model.safetensors").write_text("weights")
        (self.out / "result.json").write_text(json.dumps(RESULT))
        for name in ARTIFACTS:
            (self.out / name).write_text("x")
        self._messages.put_nowait(None)

    async def messages(self) -> AsyncIterator[AnyMessage]:
        while (message := await self._messages.get()) is not None:
            yield message

    async def wait(self) -> int:
        return self._code

    def terminate(self) -> None:
        self.terminated = True
        self._messages.put_nowait(None)

    async def release(self) -> None:
        self.killed = True


class Trainer:
    """One attempt at a training."""

    def __init__(self, objects: FakeStore, folder: Path) -> None:
        trainer = {"gpu": "cpu", "work_dir": folder, "keep_checkpoints": 2}
        settings = Settings.model_validate({"model": {"id": BASE}, "trainer": trainer})
        self.work = TrainWork(objects, settings)
        self.claim = FakeClaim()
        train = Split(reference=objects.add("train.jsonl", b"{}\n"), examples=1, tokens=1)
        asked = DatasetValidated(
            job_id="ftjob-1", method="supervised", format="chat", train=train, report=NOWHERE, longest_tokens=1
        )
        self.attempt: Attempt
        self.progress: list[JobProgress]
        self.attempt, self.progress = make_attempt(
            make_job(base=BASE), "trainer", request=asked.model_dump(mode="json"), claim=self.claim
        )

    def begin(self) -> asyncio.Task[TrainingCompleted]:
        return asyncio.create_task(self.work(self.attempt))

    @property
    def said(self) -> list[str]:
        return [event.message for event in self.progress if event.state == "waiting"]


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr("services.trainer.work.TrainingProcess", fake)
    monkeypatch.setattr(patience, "PAUSES", Backoff(0.001, 0.002))
    return fake


@pytest.fixture
def trainer(objects: FakeStore, tmp_path: Path) -> Trainer:
    return Trainer(objects, tmp_path / "work")


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a training in a long step
print('{"event": "phase", "at": 0, "phase": "load"}', flush=True)
while True:
    signal.pause()
"""


async def test_a_training_whose_claim_is_lost_is_killed_without_a_grace_period(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    async def start(*_: Any, **__: Any) -> TrainingProcess:
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", STUBBORN, stdout=pipe, stderr=pipe)
        started.append(child.pid)
        return TrainingProcess(child)

    monkeypatch.setattr("services.trainer.work.TrainingProcess.start", start)
    running = trainer.begin()
    await until(lambda: trainer.progress, "the training has begun")

    trainer.claim.abandoned = True
    began = time.monotonic()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert time.monotonic() - began < GRACE_SECONDS / 2
    assert not psutil.pid_exists(started[0])


async def test_a_training_whose_claim_is_lost_uploads_nothing_more(
    objects: FakeStore, trainer: Trainer, training: FakeTraining
) -> None:
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    objects.available = False
    training.checkpoint(1)
    await until(lambda: ("put", f"{trainer.attempt.prefix}resume/step-1/adapter.safetensors") in objects.calls, "a try")

    trainer.claim.abandoned = True
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    objects.available = True
    for _ in range(10):  # nobody is left who would try again
        await asyncio.sleep(0)

    assert training.killed and not training.terminated
    assert [key for key in objects.held if "manifest" in key] == []


async def test_a_training_that_stops_with_its_service_leaves_a_checkpoint(
    objects: FakeStore, trainer: Trainer, training: FakeTraining
) -> None:
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    training.checkpoint(1)

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    assert training.terminated
    assert f"{trainer.attempt.prefix}resume/step-1/manifest.json" in objects.held


class RotatedKey(FakeStore):
    async def before(self, operation: str, key: str) -> None:
        self.calls.append((operation, key))
        if not self.available:
            raise ConfigError("the object store knows no access key 'me' (TUNESTREAM_STORE__ACCESS_KEY)")


@pytest.mark.parametrize("kind", [FakeStore, RotatedKey])
async def test_what_was_trained_waits_for_the_store_as_long_as_it_takes(
    tmp_path: Path, training: FakeTraining, kind: type[FakeStore]
) -> None:
    objects = kind()
    trainer = Trainer(objects, tmp_path / "work")
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    objects.available = False
    training.checkpoint(1, listed=True)
    training.end()
    await until(lambda: trainer.said, "the job says what it waits for")
    before = len(objects.calls)
    await until(lambda: len(objects.calls) > before + 20, "it tries again and again")
    assert not running.done()

    objects.available = True
    completed = await running

    assert training.started == 1
    assert objects.held[f"{completed.adapter.prefix}adapter_model.safetensors"].data == b"weights"
    assert [info.step for info in completed.checkpoints] == [1]


async def test_an_outage_while_the_result_is_uploaded_is_told_and_waited_for(
    objects: FakeStore, trainer: Trainer, training: FakeTraining
) -> None:
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    training.end()
    objects.available = False
    await until(lambda: trainer.said, "the job says what it waits for")
    assert trainer.said[0].startswith("the training is done and waits to be uploaded: the object store does not answer")
    assert len(trainer.said) == 1

    objects.available = True
    await running


async def test_after_an_outage_all_that_is_listed_is_uploaded_and_of_the_states_the_newest(
    objects: FakeStore, trainer: Trainer, training: FakeTraining
) -> None:
    running = trainer.begin()
    await until(lambda: training.started, "the training has begun")
    objects.available = False
    for step in (1, 2, 3):
        training.checkpoint(step, listed=True)
        training.checkpoint(step)
    await until(lambda: not (training.out / "resume/step-2").exists(), "the older states are given up")
    assert not (training.out / "resume/step-1").exists()
    assert not running.done() and not training.killed

    objects.available = True
    newest = f"{trainer.attempt.prefix}resume/step-3/manifest.json"
    await until(lambda: newest in objects.held, "the newest state is uploaded")
    assert [event.step for event in trainer.progress if event.state == "checkpoint"] == [1, 2, 3]
    training.end()
    completed = await running

    assert [info.step for info in completed.checkpoints] == [1, 2, 3]
    assert not [key for key in objects.held if "resume/step-1" in key or "resume/step-2" in key]


async def test_a_store_that_is_away_at_the_beginning_is_no_bug(
    objects: FakeStore, trainer: Trainer, training: FakeTraining
) -> None:
    objects.available = False
    with pytest.raises(StoreUnavailable):
        await trainer.work(trainer.attempt)
    assert training.started == 0


# --- a full disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (errno.ENOSPC, TransientError, r"the disk of .* \(TUNESTREAM_TRAINER__WORK_DIR\) is full"),
        (errno.EDQUOT, TransientError, "is full"),
        (errno.EROFS, ConfigError, r"\(TUNESTREAM_TRAINER__WORK_DIR\) cannot be written"),
    ],
)
async def test_a_disk_that_takes_nothing_is_waited_for(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], words: str
) -> None:
    async def download(*_: Any) -> None:
        raise OSError(number, "a test said so")

    monkeypatch.setattr(FakeStore, "download", download)
    with pytest.raises(error, match=words):
        await trainer.work(trainer.attempt)


def test_a_training_process_that_found_its_disk_full_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match=r"a disk is full.*TUNESTREAM_TRAINER__WORK_DIR"):
        raise_for_exit_code(ExitCode.NO_SPACE, "", tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:603] . No space left on device"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_recognised_whatever_library_met_it(error: Exception) -> None:
    wrapped = ValueError("not saved")
    wrapped.__cause__ = error
    assert disk.is_full(error) and disk.is_full(wrapped)
    assert not disk.is_full(ValueError("something else"))
