"""How often each unfinished job is read from the ledger."""

from __future__ import annotations

from collections.abc import Collection, Sequence

LONGEST_PAUSE = 120.0
"""Seconds between two looks at a job of which nothing new is found. It waits in a queue, or for something outside."""


class Rhythm:
    """A job of which nothing new is heard is looked at less and less often. Times are monotonic, in seconds."""

    def __init__(self, shortest: float) -> None:
        self._shortest = shortest
        self._pauses: dict[str, float] = {}
        self._next: dict[str, float] = {}

    def due(self, jobs: Collection[str], now: float, most: int) -> Sequence[str]:
        """Those of `jobs` that are to be looked at now, the longest overdue first. Jobs that are not named are
        forgotten."""
        self._pauses = {job: pause for job, pause in self._pauses.items() if job in jobs}
        self._next = {job: self._next.get(job, 0.0) for job in jobs}
        return sorted((job for job, at in self._next.items() if at <= now), key=self._next.__getitem__)[:most]

    def looked(self, job: str, now: float) -> None:
        """`job` was looked at."""
        pause = self._pauses.get(job, self._shortest)
        self._next[job] = now + pause
        self._pauses[job] = min(pause * 2, LONGEST_PAUSE)

    def heard(self, job: str) -> None:
        """Something new is known of `job`."""
        self._pauses.pop(job, None)
        self._next.pop(job, None)
