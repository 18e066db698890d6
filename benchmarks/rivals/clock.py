"""Counts and times the steps of a training, in the same way for everybody."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import torch


class Clock:
    """Real tokens per second, by the wall clock, from the end of the warm-up to the end of the last step; and the peak
    of the GPU's memory in these steps. It waits for the GPU at both ends alone, so that it slows nobody down.

    `known`: a step is told when the GPU has computed its update, and works on the next one already. Then nothing is
    waited for, because that would be work of the next step, of which there is none at the end of a run; and a step must
    follow the last timed one, so that the process does the same before both marks.
    """

    def __init__(self, warm_up: int, steps: int, *, known: bool = False) -> None:
        self.warm_up, self.last = warm_up, warm_up + steps
        self.known = known
        self.marks: list[float] = []
        self.tokens: list[int] = []
        self.peak_before = 0.0

    def step(self, tokens: int) -> None:
        """A step of so many tokens has ended; padding is not counted."""
        at_an_end = len(self.marks) + 1 in (self.warm_up, self.last)
        if at_an_end and not self.known and torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks.append(time.perf_counter())
        self.tokens.append(tokens)
        if len(self.marks) == self.warm_up and torch.cuda.is_available():
            self.peak_before = torch.cuda.max_memory_allocated() / 2**30
            torch.cuda.reset_peak_memory_stats()

    def figures(self, **more: Any) -> dict[str, Any]:
        """What was measured.

        Raises:
            RuntimeError: there were fewer steps than asked for.
        """
        needed = self.last + self.known
        if len(self.marks) < needed:
            raise RuntimeError(f"{len(self.marks)} steps instead of {needed}")
        marks, tokens = self.marks[self.warm_up - 1 : self.last], self.tokens[self.warm_up : self.last]
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        return {
            "tokens_per_second": sum(tokens) / (marks[-1] - marks[0]),
            "tokens_per_step": sum(tokens) / len(tokens),
            "seconds_of_steps": [round(after - before, 4) for before, after in pairwise(marks)],
            "peak_gib": peak,
            "peak_gib_with_loading": None if peak is None else max(peak, self.peak_before),
            **more,
        }
