"""A training with a budget: refused before its first step, or ended with a checkpoint from which a retry goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from services.trainer.domain.budget import Limits
from services.trainer.domain.plan import Plan
from services.trainer.engine import checkpoints
from services.trainer.engine.messages import StepDone, parse_message
from shared.errors import InputError
from tests.unit.trainer.engine.test_training import losses, train

pytestmark = pytest.mark.torch

MakePlan = Callable[..., Plan]


def steps_of(text: str) -> list[int]:
    messages = (parse_message(line) for line in text.splitlines())
    return [message.step for message in messages if isinstance(message, StepDone)]


def test_a_job_that_would_take_more_takes_no_step(
    make_plan: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError) as error:
        train(make_plan(budget={"tokens": 100}), tmp_path / "out")
    assert (error.value.code, error.value.param) == ("budget_too_small", "budget.tokens")
    assert steps_of(capsys.readouterr().out) == []


def test_a_budget_that_suffices_changes_nothing(make_plan: MakePlan, tmp_path: Path):
    plain = train(make_plan(), tmp_path / "plain")
    found = train(make_plan(budget={"seconds": 10_000, "tokens": 10**7}), tmp_path / "out")
    assert losses(tmp_path / "out") == losses(tmp_path / "plain") and found.steps == plain.steps


def test_a_training_that_has_spent_its_budget_ends_and_a_retry_goes_on(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole = train(make_plan(rows="same"), tmp_path / "whole")
    monkeypatch.setattr(Limits, "check", lambda *_: None)  # the estimate was too low
    with pytest.raises(InputError) as error:
        train(make_plan(rows="same", budget={"tokens": 400}), tmp_path / "out")
    assert (error.value.code, error.value.param) == ("budget_spent", "budget.tokens")
    kept = checkpoints.newest_complete(tmp_path / "out" / "resume")
    assert kept is not None
    ended_at = checkpoints.step_of(kept.name)
    assert ended_at is not None and 0 < ended_at < whole.total_steps
    assert f"step {ended_at} of {whole.total_steps}" in error.value.message

    # another attempt of the same job may spend nothing more
    resumed = {"rows": "same", "resume_from": str(tmp_path / "out" / "resume")}
    capsys.readouterr()
    with pytest.raises(InputError):
        train(make_plan(**resumed, budget={"tokens": 400}), tmp_path / "again")
    assert steps_of(capsys.readouterr().out) == []
    # a retry, which is another job, as much again, and with enough of it the run is the one without a budget
    train(make_plan(**resumed, job_id="ftjob-retry", budget={"tokens": 10**6}), tmp_path / "retry")
    assert losses(tmp_path / "retry") == losses(tmp_path / "whole")
