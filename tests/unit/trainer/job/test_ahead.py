"""The process that is started before a job comes: its forks train like any other process, it stays when they end, is
replaced when it dies, and goes with the service."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.trainer.domain.plan import Plan
from services.trainer.engine.__main__ import StopRequest, _asked
from services.trainer.engine.messages import ExitCode, StepDone
from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.process import TrainingProcess
from shared.errors import InputError
from shared.events import Hyperparameters, JobProgress, Lora, TrainingCompleted
from shared.settings import Settings
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.trainer.conftest import kept_ahead
from tests.unit.trainer.test_work import Run

pytestmark = pytest.mark.torch


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def run(base: Path, tmp_path: Path) -> Run:
    settings = Settings.model_validate(
        {
            "model": {"id": "org/micro", "path": str(base)},
            "trainer": {"gpu": "cpu", "threads": 2, "work_dir": tmp_path / "work"},
        }
    )
    return Run(FakeStore(), settings, hyperparameters={"n_epochs": 1, "batch_size": 10})


@pytest.fixture
def no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: object, **__: object) -> None:
        raise AssertionError("no other process is started")

    monkeypatch.setattr(TrainingProcess, "start", none)


def forks(ahead: ProcessAhead) -> list[psutil.Process]:
    return psutil.Process(ahead.pid).children()


async def under_way(run: Run, number: int) -> asyncio.Task[TrainingCompleted]:
    """A long attempt, after its third step."""
    run.spec = run.spec.model_copy(update={"hyperparameters": Hyperparameters(n_epochs=50, batch_size=1)})
    began = asyncio.Event()
    run.on_progress = lambda event: began.set() if (event.step or 0) >= 3 else None
    attempt = asyncio.create_task(run.attempt(number))
    await began.wait()
    return attempt


def states(run: Run, number: int) -> list[str]:
    """Those that the attempt has uploaded, to continue from."""
    return [key for key in run.store.held if key.endswith("manifest.json") and f"attempt-{number}/resume/step-" in key]


async def test_one_process_does_one_job_after_the_other_as_any_other_process_does(run: Run, request: Any) -> None:
    cold = await run.attempt(1)
    request.getfixturevalue("no_other")
    async with kept_ahead() as ahead:
        first, run.work._ahead = ahead.pid, ahead
        for number in (2, 3):
            warm = await run.attempt(number)
            assert (warm.train_loss, run.metrics(number)) == (cold.train_loss, run.metrics(1))
            assert ahead.pid == first and not forks(ahead)


@pytest.mark.usefixtures("no_other")
async def test_it_outlives_a_training_that_is_killed_cancelled_or_wrong(run: Run) -> None:
    async with kept_ahead() as ahead:
        first, run.work._ahead = ahead.pid, ahead

        def kill(event: JobProgress) -> None:
            if event.message == "training: load":
                [fork] = forks(ahead)
                fork.kill()

        run.on_progress = kill
        with pytest.raises(RuntimeError, match="ended by signal 9"):
            await run.attempt(1)

        attempt = await under_way(run, 2)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        assert states(run, 2)

        run.spec = run.spec.model_copy(update={"lora": Lora(target_modules=["nowhere"])})
        with pytest.raises(InputError):
            await run.attempt(3)
        assert ahead.pid == first and not forks(ahead)


async def test_when_the_service_stops_the_training_leaves_a_checkpoint_and_no_process(run: Run) -> None:
    """Both are cancelled at once."""
    async with kept_ahead() as ahead:
        pid, run.work._ahead = ahead.pid, ahead
        attempt = await under_way(run, 1)
        attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    assert states(run, 1)
    assert pid is not None
    await until(lambda: not alive(pid), "it ends, as nobody can send it a plan any more")


async def test_a_training_that_nobody_wants_any_more_is_killed_and_the_next_one_runs(
    make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    async with kept_ahead() as ahead:
        first = ahead.pid
        for n_epochs, steps in ((50, 3), (1, None)):
            plan = make_plan(hyperparameters={"n_epochs": n_epochs, "batch_size": 8})
            (tmp_path / "plan.json").write_text(plan.model_dump_json())
            training = await ahead.take(tmp_path / "plan.json", tmp_path / f"out-{n_epochs}")
            assert training is not None
            async for message in training.messages():
                if isinstance(message, StepDone) and message.step == steps:
                    break
            await training.release()
            assert (await training.wait(), ahead.pid) == (-9 if steps else ExitCode.DONE, first)
            assert not forks(ahead)


async def test_a_process_that_dies_is_replaced_and_never_taken() -> None:
    async with kept_ahead() as ahead:
        dead = ahead.pid
        assert dead is not None
        psutil.Process(dead).kill()
        await until(lambda: ahead.pid not in (None, dead), "another one waits")


async def test_where_none_waits_the_job_starts_its_own(tmp_path: Path) -> None:
    ahead = ProcessAhead(gpu="cpu", threads=1)
    assert await ahead.take(tmp_path / "plan.json", tmp_path / "out") is None

    process = await TrainingProcess.start_ahead(gpu="cpu", threads=1)
    psutil.Process(process.pid).kill()
    await process.wait()
    assert not await process.begin(tmp_path / "plan.json", tmp_path / "out")


async def test_it_ends_with_the_service() -> None:
    async with kept_ahead() as ahead:
        pid = ahead.pid
    assert pid is not None and not alive(pid)


def test_it_ends_when_nobody_can_send_it_a_plan_any_more() -> None:
    command = [sys.executable, "-m", "services.trainer.engine", "--wait", "--events"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (ExitCode.DONE, b"")


def test_before_its_plan_comes_it_has_not_loaded_what_asks_a_gpu() -> None:
    """As torch for CUDA does it: bitsandbytes looks at the GPU when it is imported."""
    program = (
        "import json, os, sys, torch; torch.version.cuda = '13.0'; os.environ.pop('CUDA_VISIBLE_DEVICES', None)\n"
        "from services.trainer.engine.__main__ import _import_ahead; _import_ahead()\n"
        "print(json.dumps([name in sys.modules for name in ('transformers.modeling_utils', 'bitsandbytes', 'peft')]))\n"
        "print(torch.cuda.is_initialized())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    loaded, initialized = done.stdout.splitlines()
    assert json.loads(loaded) == [True, False, False]
    assert initialized == "False"


def test_where_a_gpu_was_touched_it_does_the_training_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork of it could not use that GPU."""
    asked = {"plan": "plan.json", "out": "out"}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(asked) + "\n"))
    monkeypatch.setattr(os.path, "realpath", lambda _: "/dev/nvidiactl")
    stop = StopRequest()
    assert _asked(stop) == asked and stop.fork is None
    assert _asked(stop) is None
