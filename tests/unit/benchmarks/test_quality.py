"""The verdict on a way to train: is its loss that of bf16 but for the noise of seeds?"""

from __future__ import annotations

import pytest

from benchmarks.quality import Trained, table, verdict


def runs(*finals: float) -> dict[int, Trained]:
    return {seed: Trained([(1, 2.0)], [(1, 1.0), (2, final)], 1.0) for seed, final in enumerate(finals, start=1)}


BF16 = runs(0.40, 0.42, 0.44)


@pytest.mark.parametrize(
    ("finals", "within"),
    [((0.41, 0.43, 0.45), True), ((0.46, 0.48, 0.50), False), ((0.34, 0.36, 0.38), False), ((0.44, 0.42, 0.40), True)],
)
def test_a_distance_within_two_standard_errors_is_noise(finals: tuple[float, ...], within: bool):
    made = verdict(runs(*finals), BF16)
    assert made.allowed == pytest.approx(2 * 0.02 * (2 / 3) ** 0.5)
    assert made.within_noise is within


def test_runs_of_other_seeds_are_not_compared():
    """Time was over after two seeds; the third of bf16 was much worse."""
    made = verdict(runs(0.41, 0.43), runs(0.40, 0.42, 0.90))
    assert made.distance == pytest.approx(0.01)
    assert made.by_seed == pytest.approx(0.01)


@pytest.mark.parametrize("reference", [{}, runs(0.4)])
def test_without_a_second_seed_of_bf16_there_is_no_verdict(reference: dict[int, Trained]):
    assert verdict(runs(0.4, 0.5), reference).within_noise is None


def test_a_mode_that_failed_is_a_row():
    lines = table({"bf16": BF16, "nf4": runs(0.41, 0.43, 0.45)}, {"fp8": "InputError: no such GPU"})
    assert [line.split()[0] for line in lines] == ["mode", "bf16", "nf4", "fp8"]
    assert lines[1].endswith(" -")
    assert lines[2].endswith(" yes")
    assert lines[3].endswith("failed: InputError: no such GPU")
