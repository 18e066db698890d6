"""A clock that tests can set."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Clock:
    """The time in seconds since the epoch. It stands still until a test changes `now`."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now
