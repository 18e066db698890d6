"""The decisions of the trainer: schedules, overfitting, the plan."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.trainer.domain.overfitting import Point, above_noise, judge
from services.trainer.domain.plan import Plan, parse_plan
from services.trainer.domain.schedule import (
    BestSoFar,
    Steps,
    checkpoint_overdue,
    checkpoint_steps,
    learning_rate,
    listed_steps,
    validation_steps,
)
from shared.errors import InputError

PLAN = {"job_id": "j", "model": "m", "base": {"id": "b", "location": "b"}, "train": "t.jsonl"}


def plan(**changes: object) -> Plan:
    return Plan.model_validate({**PLAN, **changes})


# --- schedules


def test_the_rate_warms_up_and_falls_and_is_never_zero():
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert min(rates) > 0


@given(st.integers(1, 3000), st.integers(1, 64), st.integers(1, 12))
def test_validations_and_checkpoints_come_at_each_end(examples: int, batch: int, epochs: int):
    steps = Steps(examples, batch, epochs)
    validations, checkpoints = validation_steps(steps, "auto"), checkpoint_steps(steps, "auto")
    listed = listed_steps(steps)
    assert steps.total in listed <= checkpoints
    assert all(steps.ends_epoch(step) for step in listed)
    assert len(listed) == min(epochs, 10)
    assert all(1 <= step <= steps.total for step in validations | checkpoints)
    assert {steps.per_epoch * epoch for epoch in range(1, epochs + 1)} <= validations
    assert len(validations) <= 10 + epochs
    assert len(checkpoints) <= 10


def test_validations_and_checkpoints_come_every_n_steps_if_set():
    steps = Steps(examples=20, batch_size=2, epochs=1)
    assert validation_steps(steps, 4) == {4, 8, 10}
    assert checkpoint_steps(steps, 3) == {3, 6, 9, 10}
    assert checkpoint_steps(Steps(20, 2, 2), 8) == {8, 10, 16, 20}


def test_slow_checkpoints_are_written_less_often():
    assert checkpoint_overdue(31, seconds_stopped=1)
    assert not checkpoint_overdue(31, seconds_stopped=10)


def test_positions_cover_every_row_once_an_epoch():
    steps = Steps(examples=10, batch_size=4, epochs=2)
    assert [steps.position(step) for step in range(steps.total)] == [(0, 0), (0, 4), (0, 8), (1, 0), (1, 4), (1, 8)]
    assert [step for step in range(1, 7) if steps.ends_epoch(step)] == [3, 6]


def test_patience_counts_validations_without_improvement():
    best = BestSoFar()
    for step, loss in enumerate([3.0, 2.0, 2.5, math.nan, 2.0], start=1):
        best = best.after(step, loss)
    assert (best.loss, best.step, best.since) == (2.0, 2, 3)
    assert best.exhausted(3)
    assert not best.exhausted(4)
    assert not best.exhausted(0)
    assert best.after(6, 1.0).since == 0


@pytest.mark.parametrize(
    ("now", "weights", "rose"),
    [
        ([1.0] * 40, [1] * 40, False),
        ([1.1] * 40, [1] * 40, True),
        ([0.9] * 40, [1] * 40, False),
        ([2.0, 0.1] * 20, [1] * 40, False),  # 0.05 more, but half of the rows fell
        ([1.4, 0.9] * 20, [1] * 40, True),
        ([math.nan] * 40, [1] * 40, True),
        ([1.1], [5], True),  # one row shows no noise
    ],
)
def test_a_rise_must_be_above_the_noise_of_the_rows(now: list[float], weights: list[int], rose: bool):
    assert above_noise([1.0] * len(now), now, weights) == rose


def test_a_longer_row_counts_by_its_weight():
    best, now = [100.0, *[1.0] * 40], [110.0, *[0.99] * 40]
    assert above_noise(best, now, [1] * 41) is False
    assert above_noise([2.0] * 40, [2.2] * 40, list(range(1, 41)))


def test_a_plateau_does_not_stop_a_run():
    best = BestSoFar()
    for step, loss in enumerate([2.0, 2.01, 2.01, 2.01], start=1):
        best = best.after(step, loss, risen=False)
    assert not best.exhausted(3)
    assert best.after(5, 2.4, risen=True).exhausted(3)


# --- the verdict


def points(*losses: tuple[float, float]) -> list[Point]:
    return [Point(step * 10, train, valid) for step, (train, valid) in enumerate(losses, start=1)]


def test_validation_that_rises_while_training_falls_is_overfitting():
    got = judge(points((2.0, 2.1), (1.0, 1.5), (0.5, 1.9)))
    assert (got.verdict, got.best_step) == ("overfitting", 20)
    assert "1.500 at step 20" in got.reason


def test_both_falling_is_healthy():
    assert judge(points((2.0, 2.1), (1.0, 1.5), (0.9, 1.2))).verdict == "healthy"


def test_validation_that_rises_with_training_is_not_called_overfitting():
    assert judge(points((2.0, 2.1), (1.0, 1.5), (1.4, 1.9))).verdict == "healthy"


def test_the_noise_of_a_small_validation_set_is_not_overfitting():
    assert judge(points((2.0, 2.1), (1.0, 1.500), (0.9, 1.501))).verdict == "healthy"


def test_losses_that_do_not_move_are_underfitting():
    assert judge(points((2.0, 2.1), (1.99, 2.09), (1.98, 2.08))).verdict == "underfitting"


@pytest.mark.parametrize("few", [[], points((2.0, 2.1))])
def test_without_a_trend_nothing_is_claimed(few: list[Point]):
    assert judge(few).verdict == "unknown"


# --- the plan


def test_a_wrong_plan_names_its_fields():
    text = json.dumps({**PLAN, "hyperparameters": {"n_epochs": 0, "learning_rat": 1}})
    with pytest.raises(InputError) as caught:
        parse_plan(text)
    assert caught.value.code == "invalid_plan"
    assert "hyperparameters.n_epochs" in caught.value.message
    assert "hyperparameters.learning_rat" in caught.value.message


def test_paths_are_not_part_of_the_identity_of_a_run():
    here, there = plan(), plan(train="elsewhere.jsonl", threads=2, resume_from="x", device="cpu")
    assert here.identity() == there.identity()
    assert here.identity() != plan(seed=1).identity()


def test_what_only_measurements_set_is_not_in_checkpoints_of_jobs():
    assert not {"lean", "packed"} & plan().identity().keys()  # as in those of older versions
    assert plan(lean=True).identity() == plan().identity() != plan(packed=False).identity()
