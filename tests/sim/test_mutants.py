"""Mutation testing of the simulation: each mutant is the real protocol without one of its rules, and must be caught."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.sim.mutants import MUTANTS, Mutant
from tests.sim.world import Broken, simulate

SEEDS = 1000


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_is_caught(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    mutant.apply(monkeypatch)
    for seed in (mutant.seed, *range(SEEDS)):
        try:
            simulate(seed)
        except Broken as broken:
            record_property("mutant", (mutant.name, seed, str(broken).partition(":")[0]))
            return
    pytest.fail(f"{SEEDS} histories without the rule, and nothing was noticed")


def test_there_are_enough_mutants() -> None:
    assert len({mutant.name for mutant in MUTANTS}) >= 45
