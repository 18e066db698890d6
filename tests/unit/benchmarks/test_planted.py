"""Planted problems are found, and clean rows are left alone: the benchmark, smaller."""

from __future__ import annotations

import pytest

from benchmarks.datasets.planted import KINDS, WANTED, plant, scores


@pytest.mark.parametrize("seed", [1, 2])
def test_planted_problems_are_found(seed: int) -> None:
    found = scores(plant(rows=1500, each=60, seed=seed))
    assert found.keys() == KINDS.keys()
    assert {kind: score for kind, score in found.items() if min(score.recall, score.precision) < WANTED} == {}
