"""The geometry of a forest plot. For every metric it shows two intervals: the gain over the base, and the gain over
few-shot prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping

from services.evaluator.domain.scoring import TITLES
from shared.events import FrozenModel, Interval

# The area of the plot in units of the viewBox; the names of metrics are to its left.
LEFT, RIGHT, TOP = 120.0, 700.0, 14.0
BAND = 44.0
WIDTH = 740.0


class Bar(FrozenModel):
    """One interval. `against` is `base` or `few_shot`; x values are in units of the viewBox."""

    against: str
    y: float
    low: float
    mean: float
    high: float
    interval: Interval


class Line(FrozenModel):
    """The bars of one metric. `chosen`: whether the gate decides by this metric."""

    metric: str
    title: str
    y: float
    chosen: bool
    bars: tuple[Bar, ...]


class ForestPlot(FrozenModel):
    """Everything that the template needs; `ticks` are (x, label)."""

    width: float
    height: float
    bottom: float
    zero: float
    ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...]


def forest_plot(over_base: Mapping[str, Interval], over_few_shot: Mapping[str, Interval], *, chosen: str) -> ForestPlot:
    """Place every interval on one axis that contains zero. `chosen` is the gate's metric."""
    intervals = [*over_base.values(), *over_few_shot.values()]
    lowest = min([0.0, *(interval.low for interval in intervals)])
    highest = max([0.0, *(interval.high for interval in intervals)])
    step = _tick_step(highest - lowest)
    first, last = math.floor(lowest / step - 0.1), math.ceil(highest / step + 0.1)

    def x(value: float) -> float:
        return round(LEFT + (value / step - first) / (last - first) * (RIGHT - LEFT), 1)

    lines = []
    for index, metric in enumerate(over_base):
        middle = TOP + BAND * index + BAND / 2
        both = [("base", over_base[metric]), ("few_shot", over_few_shot.get(metric))]
        there = [(against, interval) for against, interval in both if interval is not None]
        bars = tuple(
            Bar(
                against=against,
                y=middle + (place - (len(there) - 1) / 2) * 16,
                low=x(interval.low),
                mean=x(interval.mean),
                high=x(interval.high),
                interval=interval,
            )
            for place, (against, interval) in enumerate(there)
        )
        lines.append(
            Line(metric=metric, title=TITLES.get(metric, metric), y=middle, chosen=metric == chosen, bars=bars)
        )
    bottom = TOP + BAND * len(lines)
    return ForestPlot(
        width=WIDTH,
        height=bottom + 30,
        bottom=bottom,
        zero=x(0.0),
        ticks=tuple((x(tick * step), f"{tick * step:+.2g}" if tick else "0") for tick in range(first, last + 1)),
        lines=tuple(lines),
    )


def _tick_step(span: float) -> float:
    """1, 2 or 5 times a power of ten, so that about six ticks cover `span`."""
    rough = max(span, 0.01) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
