"""Intervals cover the true value as often as they promise, and are the same for the same seed."""

from __future__ import annotations

import numpy as np

from services.evaluator.statistics.bootstrap import _resamples, bootstrap, difference, mean
from services.evaluator.statistics.macro_f1 import macro_f1


def test_the_interval_of_a_mean_covers_the_truth_about_as_often_as_promised() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(300):
        sample = generator.normal(0.3, 1.0, size=60)
        interval = bootstrap({"m": mean(sample)}, 60, confidence=0.9, seed=trial, resamples=1_000)["m"]
        covered += interval.low <= 0.3 <= interval.high
    assert 0.85 <= covered / 300 <= 0.95


def test_the_interval_equals_the_normal_one_on_many_examples() -> None:
    sample = np.random.default_rng(2).normal(0.5, 0.2, size=2_000)
    interval = bootstrap({"m": mean(sample)}, 2_000, confidence=0.95, seed=0)["m"]
    half = 1.96 * sample.std() / np.sqrt(2_000)
    assert abs(interval.mean - sample.mean()) < 1e-12
    assert abs(interval.low - (sample.mean() - half)) < 0.001
    assert abs(interval.high - (sample.mean() + half)) < 0.001


def test_pairing_cancels_what_both_share() -> None:
    generator = np.random.default_rng(3)
    hardness = generator.normal(0, 1, size=50)
    base, tuned = hardness, hardness + 0.1
    paired = bootstrap({"d": difference(mean(tuned), mean(base))}, 50, confidence=0.95, seed=0)["d"]
    assert 0.0999 < paired.low <= paired.high < 0.1001


def test_macro_f1_is_recalculated_in_every_resample() -> None:
    wanted = ["a"] * 20 + ["b"] * 20
    tuned, base = macro_f1(wanted, wanted), macro_f1(wanted, ["a"] * 40)
    interval = bootstrap({"d": difference(tuned, base)}, 40, confidence=0.95, seed=0)["d"]
    # base: F1 of a = 2*20/60 = 2/3, of b = 0, macro 1/3; it moves with the share of a in the resample
    assert abs(interval.mean - 2 / 3) < 1e-12
    assert 0.55 < interval.low < 2 / 3 < interval.high < 0.8


def test_the_same_seed_gives_the_same_interval() -> None:
    sample = np.random.default_rng(4).normal(size=30)
    once = bootstrap({"m": mean(sample)}, 30, confidence=0.95, seed=7)
    assert bootstrap({"m": mean(sample)}, 30, confidence=0.95, seed=7) == once
    assert bootstrap({"m": mean(sample)}, 30, confidence=0.95, seed=8) != once


def test_many_examples_go_in_blocks_and_give_all_resamples() -> None:
    blocks = list(_resamples(3_000_000, 3, np.random.default_rng(0)))
    assert [block.shape for block in blocks] == [(1, 3_000_000)] * 3
    assert all(block.sum() == 3_000_000 for block in blocks)


def test_without_examples_the_interval_is_zero() -> None:
    interval = bootstrap({"m": mean(np.array([]))}, 0, confidence=0.95, seed=0)["m"]
    assert (interval.mean, interval.low, interval.high) == (0.0, 0.0, 0.0)


def test_three_wins_and_no_loss_of_twenty_do_not_show_an_improvement() -> None:
    wins = np.array([1.0] * 3 + [0.0] * 17)
    assert bootstrap({"m": mean(wins)}, 20, confidence=0.95, seed=0)["m"].low == 0.0
