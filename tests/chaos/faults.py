"""Injects the faults of a schedule into a stack, and ends each when its time is over."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable, Sequence

from tests.chaos.facts import Hit
from tests.chaos.schedule import Fault
from tests.chaos.stack import Missed, Stack

WAIT_FOR_TARGET = 20.0
"""Seconds within which a process that does not run just now may appear; the faults after it wait."""


class Injector:
    """Follows a schedule in the thread of the caller. `hits` are the faults that have begun."""

    def __init__(self, stack: Stack, say: Callable[[str], None]) -> None:
        self.hits: list[Hit] = []
        self.over = threading.Event()
        self._stack = stack
        self._say = say
        self._ends: list[tuple[float, int, Fault, float, Callable[[], None]]] = []

    def run(self, faults: Sequence[Fault]) -> None:
        """Inject all; return when the last has ended. Whatever happens, all are ended."""
        began, late = time.monotonic(), 0.0
        try:
            for fault in faults:
                self._end_until(began + fault.at + late)
                waited = time.monotonic()
                self._begin(fault)
                late += time.monotonic() - waited
            self._end_until(float("inf"))
        finally:
            while self._ends:
                self._end()
            self.over.set()

    def _begin(self, fault: Fault) -> None:
        at, deadline = time.time(), time.monotonic() + WAIT_FOR_TARGET
        while True:
            try:
                end = self._stack.inject(fault)
                break
            except Missed:
                if time.monotonic() > deadline:
                    self._say(f"{fault.number:4} {fault}: nothing ran there")
                    self.hits.append(Hit(str(fault), at, time.time(), missed=True))
                    return
                self._end_until(time.monotonic() + 0.5)
        self._say(f"{fault.number:4} {fault}")
        heapq.heappush(self._ends, (time.monotonic() + fault.seconds, fault.number, fault, time.time(), end))

    def _end_until(self, moment: float) -> None:
        """Wait until `moment` of the monotonic clock, and end what is over by then."""
        while self._ends and self._ends[0][0] <= moment:
            time.sleep(max(0.0, self._ends[0][0] - time.monotonic()))
            self._end()
        if moment != float("inf"):
            time.sleep(max(0.0, moment - time.monotonic()))

    def _end(self) -> None:
        _, _, fault, began, end = heapq.heappop(self._ends)
        end()
        self.hits.append(Hit(str(fault), began, time.time()))
