"""The faults of a run are a function of its seed."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.chaos.schedule import Fault, Targets, schedule

TARGETS: Targets = {
    "kill": ("weed", "trainer", "vllm"),
    "stop": ("weed", "trainer"),
    "slow": ("store",),
    "clock": ("trainer",),
}
PAIRS = {(kind, target) for kind, names in TARGETS.items() for target in names}


def test_a_seed_gives_the_same_faults_each_time_and_another_seed_gives_others() -> None:
    assert schedule("7", 50, TARGETS) == schedule("7", 50, TARGETS)
    assert schedule("7", 50, TARGETS) != schedule("8", 50, TARGETS)


def test_a_longer_run_begins_as_a_shorter_one() -> None:
    assert schedule("7", 50, TARGETS)[:20] == schedule("7", 20, TARGETS)


@pytest.mark.parametrize("seed", [str(seed) for seed in range(20)])
def test_the_faults_are_in_order_and_each_target_has_one_at_a_time(seed: str) -> None:
    faults = schedule(seed, 100, TARGETS)
    assert [fault.number for fault in faults] == list(range(1, 101))
    assert all(before.at <= after.at for before, after in pairwise(faults))
    for target in ("weed", "trainer", "vllm", "store"):
        own = [fault for fault in faults if fault.target == target]
        assert all(before.at + before.seconds < after.at for before, after in pairwise(own))


@pytest.mark.parametrize("seed", [str(seed) for seed in range(20)])
def test_every_kind_hits_every_target_before_one_is_hit_again(seed: str) -> None:
    assert {(fault.kind, fault.target) for fault in schedule(seed, len(PAIRS), TARGETS)} == PAIRS


def test_faults_of_different_targets_overlap() -> None:
    faults = schedule("1", 100, TARGETS)
    assert any(one.at < other.at < one.at + one.seconds for one, other in pairwise(faults))


def test_a_fault_says_what_it_does() -> None:
    assert str(Fault(1, 0.0, "slow", "store", 4.0, 2000)) == "slow store to 2000 bytes/s for 4 s"
    assert str(Fault(1, 0.0, "kill", "weed")) == "kill weed"


def test_without_a_target_there_is_no_schedule() -> None:
    with pytest.raises(ValueError, match="nothing to hit"):
        schedule("1", 1, {})
