"""Confidence intervals that keep their word on few examples: sign flips, corrected for skew.

If two models are equally good, an example's difference could as well have had the other sign. So the share of all sign
flips whose sum is at least the observed one is an exact p-value (Fisher 1935). The interval holds every shift that this
test does not reject. Its ends are order statistics of the means of subsets of the examples (Hartigan 1969): flipping
the signs of a subset does not lower the sum exactly if the mean of the subset is at most the shift.

Up to 13 examples all subsets are taken, beyond that 9,999 random ones. The test stays exact (Phipson & Smyth 2010).

Dividing by the standard error first (a studentized statistic) changes nothing: a flip leaves the sum of squares as it
is, so that t grows with the mean, and both have the same p-value.

Sign flips know no skew: many small wins and few big losses look better than they are. So each end is also at least as
far out as that of the t-interval corrected for skewness (Hall 1992), which costs next to no power.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.events import Interval

Name = TypeVar("Name", bound=Hashable)
Floats = NDArray[np.float64]

EXACT_EXAMPLES = 13
"""Up to so many examples all of their subsets are taken: 8,192."""
SUBSETS = 9_999
_CELLS = 4_000_000  # numbers in a block of subsets: 32 MB, however many examples there are
_DIGITS = 12  # ends are rounded, because 0.3 - 0.2 - 0.1 must not be above zero


@dataclass(frozen=True)
class Figure:
    """A figure that gets an interval."""

    values: Floats
    """A value per example, of shape (examples,); their mean is the figure."""
    bounds: tuple[float, float]
    """No value of the figure lies beyond them, and neither does an end of its interval."""
    swapped: Callable[[Floats], Floats] | None = None
    """Only for a difference that is not a mean over examples: the difference after two models swapped their answers to
    some examples. It takes subsets of shape (subsets, examples), 1.0 where answers are swapped, and returns values of
    shape (subsets,). The interval then contains zero unless this exact test rejects it."""


def intervals(
    figures: Mapping[Name, Figure], examples: int, *, confidence: float, seed: int, subsets: int = SUBSETS
) -> dict[Name, Interval]:
    """An interval for each figure, the same for the same seed. Without examples all values are zero.

    An end is the bound of the figure where there are too few examples for the confidence.
    """
    if examples == 0:
        return {name: Interval(mean=0.0, low=0.0, high=0.0, confidence=confidence) for name in figures}
    values = np.stack([figure.values for figure in figures.values()], axis=1)  # (examples, figures)
    means: list[Floats] = []
    swaps: dict[Name, list[Floats]] = {name: [] for name, figure in figures.items() if figure.swapped}
    total, empty = 1, 1  # the data as they are: no sign is flipped
    for chosen in _subsets(examples, subsets, np.random.default_rng(seed)):
        total += len(chosen)
        there = chosen[chosen.any(axis=1)]
        empty += len(chosen) - len(there)
        means.append(there @ values / there.sum(axis=1, keepdims=True))
        for name, found in swaps.items():
            if swapped := figures[name].swapped:
                found.append(swapped(chosen))
    ordered = np.sort(np.concatenate(means), axis=0)  # (subsets, figures)
    tail = (1 - confidence) / 2
    rank = int(np.floor(tail * total + 1e-9)) - empty  # of the lower end in `ordered`; negative: not to be had
    made = {}
    for column, (name, figure) in enumerate(figures.items()):
        mean = float(figure.values.mean())
        low, high = figure.bounds
        if rank >= 0:
            skewed_low, skewed_high = _corrected_for_skew(figure.values, tail)
            low = max(low, min(mean, float(ordered[rank, column]), skewed_low))
            high = min(high, max(mean, float(ordered[-1 - rank, column]), skewed_high))
        if name in swaps:
            low, high = _around_zero(low, high, mean, np.concatenate(swaps[name]), tail)
        made[name] = Interval(
            mean=mean, low=round(low, _DIGITS) + 0.0, high=round(high, _DIGITS) + 0.0, confidence=confidence
        )
    return made


def _subsets(examples: int, subsets: int, generator: np.random.Generator) -> Iterator[Floats]:
    """Subsets in blocks of shape (rows, examples), 1.0 for each member: all but the empty one, or random ones."""
    if examples <= EXACT_EXAMPLES:
        numbers = np.arange(1, 2**examples)[:, None]
        yield (numbers >> np.arange(examples) & 1).astype(np.float64)
        return
    block = max(1, _CELLS // examples)
    for start in range(0, subsets, block):
        yield generator.integers(0, 2, size=(min(block, subsets - start), examples)).astype(np.float64)


def _corrected_for_skew(values: Floats, tail: float) -> tuple[float, float]:
    """Both ends of Hall's interval: the cubic transformation of t takes its skewness away, and is inverted here."""
    count, mean = len(values), float(values.mean())
    spread = float(values.std(ddof=1)) if count > 1 else 0.0
    if spread < 1e-12:
        return mean, mean
    skewness = float(((values - mean) ** 3).mean()) / spread**3
    skewness = skewness if abs(skewness) > 1e-6 else 1e-6  # the limit without skew, without dividing by zero
    z = NormalDist().inv_cdf(1 - tail) / np.sqrt(count)

    def end(reach: float) -> float:
        straight = np.cbrt(1 + skewness * (reach - skewness / (6 * count))) - 1
        return mean - spread * float(3 / skewness * straight)

    return end(z), end(-z)


def _around_zero(low: float, high: float, mean: float, swapped: Floats, tail: float) -> tuple[float, float]:
    """The interval, widened to zero on the side where swapping the models' answers does not reject zero."""
    total = len(swapped) + 1
    if ((swapped >= mean - 1e-9).sum() + 1) / total > tail:
        low = min(low, 0.0)
    if ((swapped <= mean + 1e-9).sum() + 1) / total > tail:
        high = max(high, 0.0)
    return low, high
