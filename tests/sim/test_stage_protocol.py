"""The stage protocol in a seeded simulation: whatever fails, every stage has one result and no job is lost."""

from __future__ import annotations

import os

import pytest

from tests.sim.loop import run
from tests.sim.simulation import Faults, Simulation

SEEDS = int(os.environ.get("TUNESTREAM_SIM_SEEDS", "2000"))
BLOCK = 50
JOBS = 2
TROUBLE = Faults()
QUIET = Faults(
    kill=0, freeze=0, refused=0, reply_lost=0, event_lost=0, event_twice=0, work_fails=0, bad_data=0, cancelled=0
)


def simulate(seed: int, faults: Faults = TROUBLE, *, create_once: bool = True, jobs: int = JOBS) -> Simulation:
    simulation = Simulation(seed, faults, create_once=create_once)
    run(simulation.run_jobs(jobs))
    return simulation


@pytest.mark.parametrize("block", range(0, SEEDS, BLOCK))
def test_every_job_ends_once_whatever_fails(block: int) -> None:
    for seed in range(block, block + BLOCK):
        try:
            simulate(seed).check(JOBS)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


def test_without_faults_every_attempt_is_the_first() -> None:
    simulation = simulate(1, QUIET)
    simulation.check(JOBS)
    assert set(simulation.attempts_started) == {
        (simulation.job(number).job_id, stage, 1) for number in range(JOBS) for stage in simulation.queues
    }


def test_a_kill_at_every_single_call_is_survived() -> None:
    calls = simulate(7, QUIET, jobs=1).calls
    assert calls > 100
    for call in range(1, calls + 1):
        simulation = simulate(7, Faults(**{**QUIET.__dict__, "kill_at_call": call}), jobs=1)
        try:
            simulation.check(1)
        except AssertionError as error:
            raise AssertionError(f"killed at call {call}: {error}") from error


def test_all_events_lost_and_the_ledger_alone_finishes_the_jobs() -> None:
    simulate(3, Faults(**{**QUIET.__dict__, "event_lost": 1.0, "calm_after": 1e9})).check(JOBS)


def test_the_simulation_catches_a_protocol_without_create_once() -> None:
    """Without this the tests above would prove nothing."""
    caught = 0
    for seed in range(40):
        try:
            simulate(seed, create_once=False).check(JOBS)
        except AssertionError:
            caught += 1
    assert caught >= 5
