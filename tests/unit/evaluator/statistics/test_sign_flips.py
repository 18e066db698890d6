"""Intervals keep their word on few examples, too: a model that is no better passes as rarely as the confidence says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.intervals import LOPSIDED, NO_BETTER, Case, pass_rates, without_a_loss
from services.evaluator.statistics.macro_f1 import MacroF1
from services.evaluator.statistics.sign_flips import Figure, Floats, intervals
from shared.events import Interval

TRIALS = 1_000


def interval_of(values: Floats | list[float], confidence: float = 0.95, seed: int = 0) -> Interval:
    figure = Figure(np.asarray(values, dtype=np.float64), (-1.0, 1.0))
    return intervals({"d": figure}, len(figure.values), confidence=confidence, seed=seed)["d"]


@pytest.mark.parametrize("case", NO_BETTER, ids=lambda case: case.name)
@pytest.mark.parametrize("confidence", [0.95, 0.99])
@pytest.mark.parametrize("count", [5, 6, 10, 20])
def test_a_model_that_is_no_better_passes_at_most_as_often_as_the_confidence_says(
    case: Case, confidence: float, count: int
) -> None:
    trials = int(TRIALS * max(case.trials, 0.25))
    rate, _ = pass_rates(case, count, confidence, trials, rival=False)
    tail = (1 - confidence) / 2
    # three standard errors of the simulation: 1.5 percentage points at 0.95 and 1,000 trials
    assert rate <= tail + 3 * math.sqrt(tail * (1 - tail) / trials)


@pytest.mark.parametrize("count", [10, 20, 50])
def test_beyond_the_promise_only_those_pass_in_which_no_loss_was_seen(count: int) -> None:
    rate, _ = pass_rates(LOPSIDED[0], count, 0.95, TRIALS, rival=False)
    tail = max(0.025, without_a_loss(count, 0.95))
    assert rate <= tail + 3 * math.sqrt(tail * (1 - tail) / TRIALS)


def test_a_studentized_statistic_would_decide_the_same() -> None:
    generator = np.random.default_rng(3)
    signs = 1 - 2 * (np.arange(2**9)[:, None] >> np.arange(9) & 1)  # the first is the data as they are
    for _ in range(50):
        flipped = signs * generator.choice([0.1, 0.2, -0.3, 0.05], size=9)
        means = flipped.mean(axis=1)
        ts = means / np.maximum(flipped.std(axis=1, ddof=1), 1e-12)
        assert (means >= means[0] - 1e-12).sum() == (ts >= ts[0] - 1e-9).sum()


def test_a_real_gain_is_found() -> None:
    values = np.random.default_rng(5).normal(0.2, 0.2, size=20)
    assert interval_of(values).low > 0


def test_too_few_examples_for_the_confidence_leave_the_interval_open() -> None:
    assert (interval_of([0.2, 0.3, 0.25, 0.4, 0.2]).low, interval_of([0.2, 0.3, 0.25, 0.4, 0.2]).high) == (-1.0, 1.0)
    assert interval_of([0.2, 0.3, 0.25, 0.4, 0.2, 0.3]).low > 0  # all six better: 1 in 64, below 2.5 %
    assert interval_of([0.2, 0.3, 0.25, 0.4, 0.2, 0.3, 0.2], confidence=0.99).low == -1.0
    assert interval_of([0.2, 0.3, 0.25, 0.4, 0.2, 0.3, 0.2, 0.2], confidence=0.99).low > 0


@pytest.mark.parametrize("count", [10, 20, 200])
def test_five_wins_and_no_loss_do_not_show_an_improvement_and_eight_do(count: int) -> None:
    assert interval_of([1.0] * 5 + [0.0] * (count - 5)).low == 0.0
    assert interval_of([1.0] * 8 + [0.0] * (count - 8)).low > 0.0


def test_rounding_does_not_lift_an_end_above_zero() -> None:
    assert interval_of([0.3, -0.1, -0.2] * 4).low < 0
    assert interval_of([0.1 + 0.2 - 0.3] * 20).low == 0.0


def test_the_interval_equals_the_normal_one_on_many_examples() -> None:
    sample = np.random.default_rng(2).normal(0.2, 0.1, size=2_000)
    found = interval_of(sample)
    half = 1.96 * sample.std() / np.sqrt(2_000)
    assert abs(found.mean - sample.mean()) < 1e-12
    assert abs(found.low - (sample.mean() - half)) < 0.0005
    assert abs(found.high - (sample.mean() + half)) < 0.0005


def test_the_interval_covers_a_gain_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for seed in range(300):
        found = interval_of(generator.normal(0.1, 0.2, size=40), confidence=0.9, seed=seed)
        covered += found.low <= 0.1 <= found.high
    assert 0.85 <= covered / 300 <= 0.96


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = np.random.default_rng(4).normal(0, 0.2, size=30)
    assert interval_of(sample, seed=7) == interval_of(sample, seed=7) != interval_of(sample, seed=8)


def test_many_examples_fit_into_memory_in_blocks() -> None:
    values = np.zeros((1_000_000,))
    found = intervals({"d": Figure(values, (-1.0, 1.0))}, 1_000_000, confidence=0.95, seed=0, subsets=40)
    assert (found["d"].low, found["d"].mean) == (0.0, 0.0)


def test_without_examples_the_interval_is_zero() -> None:
    found = interval_of([])
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def test_macro_f1_has_an_interval_around_its_value() -> None:
    wanted = ["a"] * 20 + ["b"] * 20
    tuned, base = MacroF1(wanted, wanted), MacroF1(wanted, ["a"] * 40)
    found = intervals({"d": tuned.minus(base), "t": tuned.figure()}, 40, confidence=0.95, seed=0)
    # base: F1 of a = 2*20/60 = 2/3, of b = 0, macro 1/3
    assert abs(found["d"].mean - 2 / 3) < 1e-12
    assert 0.5 < found["d"].low < 2 / 3 < found["d"].high < 0.85
    assert (found["t"].low, found["t"].mean, found["t"].high) == (1.0, 1.0, 1.0)


def test_two_swapped_answers_are_no_gain_in_macro_f1() -> None:
    wanted = ["a", "b"] * 10
    base = ["b" if index == 0 else label for index, label in enumerate(wanted)]
    found = intervals({"d": MacroF1(wanted, wanted).minus(MacroF1(wanted, base))}, 20, confidence=0.95, seed=0)["d"]
    assert found.mean > 0 >= found.low
