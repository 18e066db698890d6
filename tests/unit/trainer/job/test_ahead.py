"""The training process that is started before its job comes: it trains like any other, is replaced when it dies, and
goes with the service."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.trainer.engine.messages import ExitCode
from services.trainer.job.ahead import ProcessAhead
from services.trainer.job.process import TrainingProcess
from shared.retry import Backoff
from shared.settings import Settings
from shared.tasks import in_background
from tests.support.fakes.store import FakeStore
from tests.support.waiting import until
from tests.unit.trainer.test_work import Run

pytestmark = pytest.mark.torch

SOON = Backoff(0.01, 0.02)


@asynccontextmanager
async def kept_ahead() -> AsyncIterator[ProcessAhead]:
    ahead = ProcessAhead(gpu="cpu", threads=1, pauses=SOON)
    async with in_background(ahead.run()):
        await until(lambda: ahead.pid, "a process waits")
        yield ahead


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


async def test_a_job_is_trained_by_the_process_that_waited_and_another_one_follows(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.model_validate(
        {
            "model": {"id": "org/micro", "path": str(base)},
            "trainer": {"gpu": "cpu", "threads": 1, "work_dir": tmp_path / "work"},
        }
    )
    run = Run(FakeStore(), settings, hyperparameters={"n_epochs": 1, "batch_size": 10})
    cold = await run.attempt(1)
    losses = run.metrics(1)

    async def none(*_: object, **__: object) -> None:
        raise AssertionError("no other process is started")

    monkeypatch.setattr(TrainingProcess, "start", none)
    async with kept_ahead() as ahead:
        first = ahead.pid
        run.work._ahead = ahead
        warm = await run.attempt(2)
        assert (warm.train_loss, run.metrics(2)) == (cold.train_loss, losses)
        await until(lambda: ahead.pid not in (None, first), "another one waits")


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
