"""A cancel that comes while the alias moves: the job is either cancelled, and the alias does not answer for it, or it
is completed. `outcomes.py` compares the two; here the moments are chosen that a random history seldom meets."""

from __future__ import annotations

from collections import Counter

import pytest

from shared.stages.attempts import Attempts
from tests.sim.faults import Faults
from tests.sim.jobs import Plan, a_job
from tests.sim.processes import SHAPES, Shape
from tests.sim.world import Broken, World, simulate

ALONE, TWICE = SHAPES[0], Shape(SHAPES[0].processes * 2)
CALM = 300.0


def history(cancelled_after: float | None = None, kill_at_call: int | None = None, shape: Shape = ALONE) -> World:
    """One job, which is cancelled so many seconds after its drop, while one call of the store may be the last."""
    faults = Faults(kill_at_call=kill_at_call, calm_after=CALM)
    return simulate(3, faults, shape, [Plan(a_job(0), 0.0, cancelled_after=cancelled_after)])


def moved_at(world: World) -> float:
    """Seconds between the drop of the dataset and the move of the alias."""
    return world.disk.documents["deployments/alias.json"].modified - world.began


def outcome(world: World) -> str:
    found = world.result(a_job(0).job_id, "inference")
    return found.outcome if found else "cancelled before"


def around_the_move(shape: Shape) -> Counter[str]:
    moved = moved_at(history(shape=shape))
    return Counter(outcome(history(moved + step / 20, shape=shape)) for step in range(-40, 40))


@pytest.mark.parametrize("shape", [ALONE, TWICE])
def test_a_cancel_around_the_move_of_the_alias_leaves_no_alias_of_a_cancelled_job(shape: Shape) -> None:
    seen = around_the_move(shape)

    assert seen["cancelled"] > 5 and seen["completed"] > 5


@pytest.mark.parametrize("shape", [ALONE, TWICE])
def test_a_process_that_dies_around_the_move_leaves_no_alias_of_a_cancelled_job(shape: Shape) -> None:
    """Its successor finds both the cancel and the alias."""
    calm = history(shape=shape)
    seen: Counter[str] = Counter()
    for dies in range(2 * calm.calls - 60, 2 * calm.calls):
        seen[outcome(history(moved_at(calm) + 0.5, dies, shape))] += 1

    assert seen["cancelled"] > 5 and seen["completed"] > 5


def test_without_the_decision_the_alias_answers_for_a_cancelled_job(monkeypatch: pytest.MonkeyPatch) -> None:
    async def wanted(self: Attempts, job_id: str, wanted: bool) -> bool:
        return wanted

    monkeypatch.setattr(Attempts, "_goes_on", wanted)
    with pytest.raises(Broken, match="the alias answers for no cancelled job"):
        test_a_process_that_dies_around_the_move_leaves_no_alias_of_a_cancelled_job(ALONE)
