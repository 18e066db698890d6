"""Which requests may have killed the model server, so that the same request does not kill it again and again.

When the server dies, every generation that was under way gets a mark; if a marked one was on trial at that time, it
alone does. A request with two marks is refused for a while. An answer that comes to its end takes the marks away.

A marked request is on trial from when it is sent until its answer begins, or some seconds have passed. Only one is on
trial at a time, so of a hundred that were under way by chance, none is taken for the one that kills.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

MARKS = 2
"""Deaths of the server after which a request is refused."""
REMEMBERED_SECONDS = 600.0
"""For how long a mark counts, and a request is refused."""
MOST = 4096
"""Requests with marks that are remembered. When there are more, the oldest are forgotten."""


@dataclass(eq=False)
class Generation:
    """One request that the server works on. `key`: what identical requests have in common."""

    key: Hashable
    on_trial: bool = False
    counted: bool = False
    """A death of the server while it was under way has been counted."""
    guilty: bool = False
    """Nothing else can have been the cause of that death."""


class Suspects:
    """The requests with marks, and all that are under way. Times are in seconds, from a clock that never goes back."""

    def __init__(self, most: int = MOST) -> None:
        self._marks: OrderedDict[Hashable, tuple[int, float]] = OrderedDict()
        """The number of marks, and the time of the last one."""
        self._under_way: set[Generation] = set()
        self._most = most

    def marks(self, key: Hashable, now: float) -> int:
        """How many marks the request has."""
        if not self._marks:
            return 0
        count, at = self._marks.get(key, (0, now))
        return count if now - at < REMEMBERED_SECONDS else 0

    def begin(self, generation: Generation) -> None:
        """Note that the request is sent now."""
        self._under_way.add(generation)

    def end(self, generation: Generation) -> None:
        """Note that it is over, however it ended. It may be called twice."""
        self._under_way.discard(generation)

    def succeeded(self, generation: Generation) -> None:
        """Note that its answer came to its end: it does no harm."""
        if self._marks:
            self._marks.pop(generation.key, None)

    def died(self, generation: Generation, now: float) -> None:
        """Note that the server died while `generation` was under way. All others that were under way at that time will
        call this, too; the death counts once."""
        if generation.counted:
            return
        present = [one for one in self._under_way if not one.counted]
        blamed = [one for one in present if one.on_trial] or present
        for one in present:
            one.counted = True
        for one in blamed:
            one.guilty = len(blamed) == 1
        for key in {one.key for one in blamed}:
            self._marks[key] = (self.marks(key, now) + 1, now)
            self._marks.move_to_end(key)
        while len(self._marks) > self._most:
            self._marks.popitem(last=False)
