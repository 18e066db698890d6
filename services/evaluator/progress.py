"""Publishes how far the evaluation is, at most once a second."""

from __future__ import annotations

from collections.abc import Callable

from shared.stages.stage import Attempt

EVERY_SECONDS = 1.0


class Progress:
    """Counts the answers of all variants. It estimates the time left from the answers that were asked for in this
    attempt."""

    def __init__(self, attempt: Attempt, total: int, clock: Callable[[], float]) -> None:
        """`clock`: seconds that only ever grow."""
        self._attempt = attempt
        self._total = total
        self._clock = clock
        self._started = self._published_at = clock()
        self._asked = self._skipped = 0
        self._part, self._part_done, self._part_total = "", 0, 0

    async def begin(self, part: str, total: int) -> None:
        """Begin a part of `total` answers: a variant, or the edge prompts."""
        self._part, self._part_done, self._part_total = part, 0, total
        await self._publish()

    async def count_answer(self) -> None:
        """Count one answer."""
        self._asked += 1
        self._part_done += 1
        if self._part_done == self._part_total or self._clock() - self._published_at >= EVERY_SECONDS:
            await self._publish()

    async def count_reused(self, count: int) -> None:
        """Count answers of this part that an earlier attempt got."""
        self._skipped += count
        self._part_done += count
        await self._publish()

    async def _publish(self) -> None:
        self._published_at = self._clock()
        done = self._asked + self._skipped
        each = (self._published_at - self._started) / self._asked if self._asked else None
        await self._attempt.progress(
            message=f"{self._part}: {self._part_done} of {self._part_total} answers",
            step=done,
            total_steps=self._total,
            eta_seconds=None if each is None else each * (self._total - done),
            data={"part": self._part, "done": self._part_done, "total": self._part_total},
        )
