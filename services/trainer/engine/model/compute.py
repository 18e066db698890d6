"""The type that a base computes in: bfloat16 on a GPU, and on a CPU where that is faster than float32. The adapter's
weights and the optimizer are float32 everywhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

FLOAT32, BFLOAT16 = "float32", "bfloat16"
IN_16_BITS = (torch.bfloat16, torch.float16)
LEAST_GAIN = 1.5
"""How many times faster products must be: what is not a product costs a little more in 16 bits."""
ROWS, WIDTH, TRIES = 256, 512, 5
"""The product that is timed, (rows, width) times (width, width), and how often. It takes a millisecond in float32."""


@dataclass(frozen=True)
class Compute:
    """The name of a type of torch, and why it was chosen."""

    name: str
    reason: str

    @property
    def dtype(self) -> Any:
        return getattr(torch, self.name)


def choose_compute(
    stored: Any, device: Any, kept: str | None = None, gain: Callable[[], float] | None = None
) -> Compute:
    """Choose for a base whose weights are `stored` in that type of torch (None: its config does not say). `kept`: what
    the run that is continued has computed in. `gain`: see `gain_of_16_bits`, which it is by default."""
    if device.type != "cpu":
        return Compute(BFLOAT16, "the usual one on a GPU")
    if kept is not None:
        return Compute(kept, "that of the checkpoint that the run continues from")
    if stored not in IN_16_BITS:
        said = "its config does not say how" if stored is None else str(stored).removeprefix("torch.")
        return Compute(FLOAT32, f"on a CPU, for a base that is not stored in 16 bits ({said})")
    times = (gain or gain_of_16_bits)()
    measured = f"measured on this CPU: products in {BFLOAT16} are {times:.1f} times as fast as in {FLOAT32}"
    return Compute(BFLOAT16 if times >= LEAST_GAIN else FLOAT32, measured)


def gain_of_16_bits() -> float:
    """How many times faster this CPU multiplies in bfloat16 than in float32. Takes about 10 ms.

    It is measured on one thread, because threads that wait for each other beside busy processes would hide it, and in
    turns, the best of each, so that what else happens meanwhile counts little.
    """
    seconds = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    operands = {
        dtype: (torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)) for dtype in seconds
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for attempt in range(TRIES + 1):
            for dtype, (left, right) in operands.items():
                began = time.perf_counter()
                F.linear(left, right)
                if attempt:  # the first prepares the kernel
                    seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return seconds[torch.float32] / seconds[torch.bfloat16]
