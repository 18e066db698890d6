"""The stage protocol in a seeded simulation: whatever fails, every stage has one result, no job is lost, and nothing is
done twice that did not have to be. `invariants.py` and `outcomes.py` say what must hold, `faults.py` what fails."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace

import pytest

from shared.events import StageName
from shared.stages.stage import STAGES
from tests.sim.faults import QUIET, Faults
from tests.sim.jobs import Plan, a_job
from tests.sim.processes import SHAPES, Shape
from tests.sim.world import World, simulate

SEEDS = int(os.environ.get("TUNESTREAM_SIM_SEEDS", "2000"))
BLOCK = 50
ALONE = SHAPES[0]


@pytest.mark.parametrize("block", range(0, SEEDS, BLOCK))
def test_every_promise_holds_whatever_fails(block: int) -> None:
    for seed in range(block, min(block + BLOCK, SEEDS)):
        try:
            simulate(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_the_histories_hold_what_they_are_meant_to_test() -> None:
    """Without this, the promises above might hold because nothing ever put them to the test."""
    seen: Counter[str] = Counter()
    for seed in range(300):
        seen += simulate(seed).watch.seen
    assert {what: count for what, count in seen.items() if count < 3} == {}
    assert set(seen) == {
        "claims of the dead",
        "claims beside a paused owner",
        "claims beside an owner in doubt",
        "work stopped by a lost claim",
        "work stopped by a refusal",
        "work stopped by its user",
        "work stopped by a pause",
        "work stopped by a stop of its service",
        "work done while in doubt",
        "results of lost owners",
        "moves of the alias",
    }


def test_the_same_seed_gives_the_same_history() -> None:
    def history(seed: int) -> list[tuple[str, float, float | None, str]]:
        return [(str(work), work.began, work.ended, work.how) for work in simulate(seed).watch.works]

    for seed in range(5):
        assert history(seed) == history(seed)


def test_without_faults_every_attempt_is_the_first() -> None:
    for seed in range(20):
        world = simulate(seed, QUIET)
        assert Counter(work.about for work in world.watch.works) == {
            (plan.job.job_id, stage): 1 for plan in world.plans for stage in STAGES
        }


@pytest.mark.parametrize("half", [0, 1])
def test_a_kill_at_every_single_call_is_survived(half: int) -> None:
    """Before the effect of the call, and after it."""
    job = [Plan(a_job(1), 0.0)]
    calls = simulate(7, QUIET, ALONE, job).calls
    assert calls > 100
    for call in range(half, 2 * calls, 2):
        try:
            simulate(7, replace(QUIET, kill_at_call=call), ALONE, job)
        except AssertionError as error:
            raise AssertionError(f"killed at call {call / 2}: {error}") from error


def test_all_events_lost_and_the_ledger_alone_finishes_the_jobs() -> None:
    for seed in range(10):
        simulate(seed, Faults(event_lost=1.0, calm_after=1e9))


def test_jobs_with_a_broken_cause_do_not_delay_another() -> None:
    """Three jobs wait for something outside, in the only slot of each stage, before a fourth comes."""
    last = Plan(a_job(3), 200.0)
    stages: list[StageName] = ["validate", "trainer", "trainer"]
    broken = [Plan(a_job(number), number, "broken_cause", stage) for number, stage in enumerate(stages)]
    for seed in range(10):
        world = simulate(seed, Faults(calm_after=400.0), ALONE, [*broken, last])
        assert _seconds_idle(world, last) < 12  # 3 per stage


def _seconds_idle(world: World, plan: Plan) -> float:
    """Between the drop of a dataset and the end of its job, in which nobody worked on it."""
    result = world.disk.documents[f"jobs/{plan.job.job_id}/inference/result.json"]
    works = [work for work in world.watch.works if work.about[0] == plan.job.job_id]
    return result.modified - plan.arrives - world.began - sum(work.ended - work.began for work in works if work.ended)


def test_a_hundred_jobs_on_three_replicas_of_each_stage() -> None:
    """No work is done twice, all slots are busy, and whoever comes first is served first: `Watch` looks."""
    shape = Shape(tuple((stage,) for stage in STAGES) * 3)
    world = simulate(1, Faults(calm_after=1500.0), shape, [Plan(a_job(number), number / 10) for number in range(100)])
    assert len(world.watch.works) == 400
