"""Fixtures for tests of the trainer: a micro base and plans for it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from services.trainer.domain.plan import Plan
from services.trainer.job.ahead import ProcessAhead
from shared.retry import Backoff
from shared.tasks import in_background
from tests.support.data.micro_base import make_base, make_tokenizer, support_rows, write_rows
from tests.support.waiting import until


@pytest.fixture(autouse=True)
def one_thread() -> None:
    if "torch" in sys.modules:  # a test that needs torch has imported it by now
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_base(tmp_path_factory.mktemp("base") / "micro")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return make_tokenizer()


@asynccontextmanager
async def kept_ahead() -> AsyncIterator[ProcessAhead]:
    ahead = ProcessAhead(gpu="cpu", threads=1, pauses=Backoff(0.01, 0.02))
    async with in_background(ahead.run()):
        await until(lambda: ahead.pid, "a process waits")
        yield ahead


@pytest.fixture
async def ahead() -> AsyncIterator[ProcessAhead]:
    """One that does the trainings of a test in forks of its process, so that libraries are imported once."""
    async with kept_ahead() as kept:
        yield kept


@pytest.fixture
def make_plan(base: Path, tmp_path: Path) -> Callable[..., Plan]:
    """A plan on 40 training and 8 validation rows; keyword arguments change it."""

    def make(**changes: Any) -> Plan:
        plan = {
            "job_id": "ftjob-test",
            "model": "ft:micro:org::test",
            "base": {"id": "micro", "location": str(base)},
            "train": str(write_rows(tmp_path / "train.jsonl", support_rows(40))),
            "validation": str(write_rows(tmp_path / "valid.jsonl", support_rows(8, start=40))),
            "hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate": 0.01},
            "device": "cpu",
        }
        return Plan.model_validate({**plan, **changes})

    return make
