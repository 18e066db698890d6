"""What follows when the gradient of a step is there. Nothing here waits for the device to compute it: whether the step
counts is decided there, and its numbers are read when they are there, while it computes on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch


def adamw(parameters: Sequence[Any], weight_decay: float) -> Any:
    """The optimizer of `parameters`. The fused kernel is the one that can be told by the device to change nothing."""
    return torch.optim.AdamW(parameters, weight_decay=weight_decay, fused=True)


def update(optimizer: Any, rate: float, skip: Any = None) -> None:
    """Change the parameters by their gradients. If memory runs out, they and the optimizer are as they were before, and
    it is tried once more in the memory that can be freed. `skip`: a float32 scalar on their device; if it is 1, neither
    parameters nor moments nor counters change."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.found_inf = skip
    # Memory is only needed for the state of the first step and for small temporaries, before the kernel that changes
    # adapter and moments in place. So what can be half done is that state, and the count of the steps.
    counters = [state["step"] for state in optimizer.state.values()]
    count = counters[0].clone() if counters else None
    for last in (False, True):
        try:
            optimizer.step()
            return
        except torch.cuda.OutOfMemoryError:
            if count is None:
                optimizer.state.clear()
            for counter in counters:
                counter.copy_(count)
            if last:
                raise
        torch.cuda.empty_cache()


class Watch:
    """Reads the numbers of each step, and how long it took, as soon as the device has computed them. What was launched
    after them is not waited for, and its time is that of the next step."""

    def __init__(self, device: Any) -> None:
        self._on_gpu = device.type == "cuda"
        self._numbers: Any = None
        self._began = 0.0
        """By the monotonic clock; `_begin` is the same moment on the GPU."""
        self._ended = 0.0
        self._begin: Any = None
        self._end: Any = None

    def begin(self) -> None:
        """A step begins, and the device has nothing to do. Without a call, a step begins where the one before it
        ended."""
        self._began = time.monotonic()
        self._begin = self._mark()

    def note(self, numbers: Any) -> None:
        """The step ends with what was launched last; `numbers`, a few on the device, are what to read of it."""
        if self._on_gpu:
            host = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers = host.copy_(numbers, non_blocking=True)
            self._end = self._mark()
        else:
            self._numbers, self._ended = numbers, time.monotonic()

    def read(self) -> tuple[list[float], float]:
        """The numbers of the step that was noted last, and the seconds that it took."""
        if self._on_gpu:
            self._end.synchronize()
            # Not the clock now: meanwhile the process may have launched the next step for longer than this one took.
            self._ended = self._began + self._begin.elapsed_time(self._end) / 1000
        seconds = self._ended - self._began
        self._began, self._begin = self._ended, self._end
        return self._numbers.tolist(), seconds

    def _mark(self) -> Any:
        if not self._on_gpu:
            return None
        mark = torch.cuda.Event(enable_timing=True)
        mark.record()
        return mark
