"""When a training ends, and how fast it is, by a clock that the test moves."""

from __future__ import annotations

from typing import Any

import pytest

from services.trainer.domain.utilization import Cost
from services.trainer.engine.report.pace import Pace


class Training:
    """A training in which everything takes as long as the test says; `pace` watches it."""

    def __init__(self, total: int, validations: dict[int, float] | None = None, **more: Any) -> None:
        self.now = 100.0
        self.pace = Pace(total, validations or {}, more.pop("checkpoints", ()), clock=lambda: self.now, **more)

    def step(self, step: int, seconds: float, tokens: int = 100) -> None:
        self.pace.begin_step()
        self.now += seconds
        self.pace.end_step(step, tokens, seconds)

    def validate(self, step: int, seconds: float) -> None:
        with self.pace.validating(step):
            self.now += seconds

    def checkpoint(self, seconds: float) -> None:
        with self.pace.checkpointing():
            self.now += seconds


def test_nothing_is_said_of_the_end_before_a_step_is_done() -> None:
    training = Training(10)
    assert (training.pace.eta_seconds, training.pace.tokens_per_second, training.pace.mfu) == (None, None, None)


def test_the_first_step_warms_up_and_stops_counting_with_the_second() -> None:
    training = Training(10)
    training.step(1, 30.0)
    assert training.pace.eta_seconds == pytest.approx(270.0)
    training.step(2, 2.0)
    assert training.pace.eta_seconds == pytest.approx(16.0)
    assert training.pace.tokens_per_second == pytest.approx(50.0)


def test_the_time_left_runs_down_within_a_step_and_waits_when_the_step_takes_longer() -> None:
    training = Training(5)
    training.step(1, 10.0)
    training.step(2, 10.0)
    training.pace.begin_step()
    training.now += 4.0
    assert training.pace.eta_seconds == pytest.approx(26.0)
    training.now += 100.0
    assert training.pace.eta_seconds == pytest.approx(20.0)


def test_validations_count_before_the_first_one_is_measured() -> None:
    training = Training(4, {2: 1000.0, 4: 3000.0})
    training.step(1, 1.0)
    training.step(2, 1.0)  # 100 tokens/s; a validation is about twice as fast
    assert training.pace.eta_seconds == pytest.approx(2.0 + 4000 / 200)
    training.validate(2, 10.0)  # it is not
    assert training.pace.eta_seconds == pytest.approx(2.0 + 30.0)
    training.step(3, 1.0)
    training.step(4, 1.0)
    assert training.pace.eta_seconds == pytest.approx(30.0)
    training.validate(4, 30.0)
    assert training.pace.eta_seconds == 0.0


def test_a_validation_that_was_left_out_is_not_expected_any_more() -> None:
    training = Training(4, {1: 1000.0, 4: 1000.0})
    training.step(1, 1.0)
    training.step(2, 1.0)
    assert training.pace.eta_seconds == pytest.approx(2.0 + 5.0)


def test_checkpoints_count_once_one_is_measured() -> None:
    training = Training(4, checkpoints={2, 3, 4})
    training.step(1, 1.0)
    training.step(2, 1.0)
    training.checkpoint(5.0)
    assert training.pace.eta_seconds == pytest.approx(2.0 + 2 * 5.0)
    by_the_clock = Training(1000, checkpoints={1000}, clocked=True)
    by_the_clock.step(1, 3.0)
    by_the_clock.step(2, 3.0)
    by_the_clock.checkpoint(1.0)
    assert by_the_clock.pace.eta_seconds == pytest.approx(2994.0 * (1 + 1 / 30))


def test_the_speed_follows_a_change_within_half_a_minute_and_one_slow_step_moves_it_little() -> None:
    training = Training(10_000)
    for step in range(1, 1001):
        training.step(step, 0.1)
    training.step(1001, 1.0)
    assert training.pace.tokens_per_second == pytest.approx(1000, rel=0.3)
    for step in range(1002, 1302):
        training.step(step, 0.2)
    assert training.pace.tokens_per_second == pytest.approx(500, rel=0.2)


def test_a_run_that_continues_has_its_own_speed_and_what_is_left_of_the_whole() -> None:
    training = Training(100, {50: 1000.0, 100: 1000.0})
    training.step(91, 1.0)
    assert training.pace.eta_seconds == pytest.approx(9.0 + 1000 / 200)


def test_the_mfu_is_known_with_the_cost_of_a_token_and_counts_recomputation() -> None:
    recomputes = False
    training = Training(3, cost=Cost(matmuls=5.0, attention=0.0, peak=8000.0), recomputes=lambda: recomputes)
    training.step(1, 1.0)
    assert training.pace.mfu == pytest.approx(100 * 20 / 8000)
    recomputes = True
    assert training.pace.mfu == pytest.approx(100 * 30 / 8000)
