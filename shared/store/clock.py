"""The store's own clock, which all processes agree on, whatever their own clocks say."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

DRIFT = 5e-4
"""By how much two clocks may drift apart, in seconds per second: NTP corrects a clock by at most this rate."""


@dataclass(frozen=True)
class Bounds:
    """Between which limits the store's time lay beyond the monotonic time, in seconds, at the monotonic time `at`."""

    low: float
    high: float
    at: float

    @classmethod
    def of_answer(cls, date: float, sent: float, received: float) -> Bounds:
        """What one answer says. It was written between `sent` and `received` (monotonic), when the store's clock showed
        `date`, of which the fraction of the second was cut off."""
        return cls(date - received, date + 1.0 - sent, received)

    def later(self, at: float) -> Bounds:
        """The same, after both clocks have drifted until the monotonic time `at`."""
        drift = max(0.0, at - self.at) * DRIFT
        return Bounds(self.low - drift, self.high + drift, max(at, self.at))

    def meet(self, other: Bounds) -> Bounds | None:
        """What both allow; None if they contradict each other."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Bounds(low, high, max(self.at, other.at)) if low <= high else None

    @property
    def middle(self) -> float:
        return (self.low + self.high) / 2


class StoreClock:
    """The time of the store, from the `Date` of its answers and the monotonic time since. Threads may share it.

    Every answer bounds the time to about a second, and all answers together to a few milliseconds. An answer that
    contradicts the earlier ones means that the store's clock was set, so the estimate starts anew from it. Before the
    first answer the machine's own clock has to do.
    """

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._bounds: Bounds | None = None
        self.heard = float("-inf")
        """The monotonic time of the store's last answer."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._monotonic() + self.offset()

    def offset(self) -> float:
        """How far the store's time is ahead of the monotonic time, in seconds. It changes by more than a second only
        when the store's clock was set, or with the first answer."""
        bounds = self._bounds
        return bounds.middle if bounds else self._wall() - self._monotonic()

    def note(self, date: str | None, sent: float) -> None:
        """Learn from the header `Date` of an answer that has just come. `sent`: the monotonic time at which its request
        left. A date that cannot be read is ignored."""
        self.heard = received = self._monotonic()
        seconds = _seconds(date)
        if seconds is None:
            return
        answer = Bounds.of_answer(seconds, sent, received)
        with self._lock:
            known = self._bounds and self._bounds.later(received).meet(answer)
            self._bounds = known or answer

    def monotonic(self) -> float:
        """The monotonic clock that `note` compares with, in seconds."""
        return self._monotonic()


def _seconds(date: str | None) -> float | None:
    """Seconds since the epoch of a date such as `Thu, 26 Nov 2026 06:36:34 GMT`."""
    try:
        return parsedate_to_datetime(date).timestamp() if date else None
    except (ValueError, TypeError, OverflowError):
        return None
