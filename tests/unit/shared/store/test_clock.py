"""The store's clock is learned from the dates of its answers, whatever the machine's own clock says."""

from __future__ import annotations

import random
from email.utils import formatdate

import pytest

from shared.store.clock import StoreClock

STORE = 1_790_000_000.25
"""The store's time at the start, in seconds since the epoch."""


class World:
    """A machine and a store, whose clocks a test moves."""

    def __init__(self, machine_is_ahead: float = 0.0) -> None:
        self.passed = 0.0
        self.store = STORE
        self.ahead = machine_is_ahead
        self.clock = StoreClock(wall=lambda: self.real + self.ahead, monotonic=lambda: 50.0 + self.passed)

    @property
    def real(self) -> float:
        return self.store + self.passed

    def ask(self, there: float = 0.0, back: float = 0.0) -> None:
        """One request: its way to the store and the way of the answer, in seconds."""
        sent = self.clock.monotonic()
        self.passed += there
        date = formatdate(self.real, usegmt=True)
        self.passed += back
        self.clock.note(date, sent)

    @property
    def error(self) -> float:
        return self.clock.now() - self.real


def test_before_any_answer_the_machines_own_clock_has_to_do() -> None:
    assert World().error == pytest.approx(0)
    assert World(machine_is_ahead=3600).error == pytest.approx(3600)


@pytest.mark.parametrize("ahead", [0.0, -3600.0, 3600.0, 1e8])
def test_one_answer_tells_the_time_to_a_second(ahead: float) -> None:
    world = World(ahead)
    world.ask()
    assert abs(world.error) <= 0.5 + 1e-6


def test_the_time_goes_on_between_answers_and_with_the_machines_clock_set() -> None:
    world = World()
    world.ask()
    world.passed += 500
    world.ahead = -7200
    assert abs(world.error) <= 0.5 + 1e-6


def test_many_answers_sharpen_it() -> None:
    world, chance = World(3600), random.Random(1)
    for _ in range(300):
        world.passed += chance.uniform(0, 0.2)
        world.ask(chance.uniform(0.001, 0.01), chance.uniform(0.001, 0.01))
    assert abs(world.error) < 0.02


@pytest.mark.parametrize(("there", "back"), [(30.0, 0.0), (0.0, 30.0)])
def test_a_slow_answer_says_little_and_does_no_harm(there: float, back: float) -> None:
    world = World(3600)
    for _ in range(20):
        world.passed += 0.13
        world.ask()
    sharp = world.error
    world.ask(there, back)
    assert world.error == pytest.approx(sharp, abs=0.05)


@pytest.mark.parametrize("jump", [-3600.0, 3600.0, 10.0, -10.0])
def test_a_store_whose_clock_was_set_is_believed_at_once(jump: float) -> None:
    world = World()
    for _ in range(20):
        world.passed += 0.13
        world.ask()
    world.store += jump
    world.ask()
    assert abs(world.error) <= 0.5 + 1e-6


def test_clocks_that_drift_apart_by_as_much_as_ntp_corrects_do_not_confuse_it() -> None:
    world, worst = World(), 0.0
    for _ in range(2000):
        world.passed += 5.0
        world.store += 5.0 * 4e-4
        world.ask(0.002, 0.002)
        worst = max(worst, abs(world.error))
    assert worst < 0.6


@pytest.mark.parametrize(
    "date", [None, "", "soon", "Thu, 99 Nov 2026 06:36:34 GMT", "0", "Thu, 26 Nov 99999999 1:1:1 GMT"]
)
def test_a_date_that_cannot_be_read_is_ignored(date: str | None) -> None:
    world = World()
    world.ask()
    before = world.clock.offset()
    world.clock.note(date, world.clock.monotonic())
    assert world.clock.offset() == before
