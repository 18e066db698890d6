"""The geometry of the plots: histograms with upright bars, and ranked bars that lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shared.events import FrozenModel

WIDTH, HEIGHT = 560.0, 190.0
LEFT, BOTTOM, TOP = 8.0, 24.0, 18.0
MOST_BARS = 12
MOST_LABELS = 9


class Bar(FrozenModel):
    """A bar in units of the viewBox, its name below or beside it, and how many rows it stands for."""

    x: float
    y: float
    width: float
    height: float
    name: str
    rows: int
    named: bool = True
    """Whether there is room for its name."""


class Plot(FrozenModel):
    """What the template needs to draw a plot. `marks` are (x, name) of upright lines."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    marks: tuple[tuple[float, str], ...] = ()


def histogram(bins: Sequence[tuple[int, int]], marks: Mapping[str, int] | None = None) -> Plot | None:
    """A histogram of bins (least value, rows), in order. `marks`: values that are shown as lines, by name. None: there
    is nothing to show."""
    if not any(rows for _, rows in bins):
        return None
    highest = max(rows for _, rows in bins)
    step = (WIDTH - 2 * LEFT) / len(bins)
    every = -(-len(bins) // MOST_LABELS)
    bars = []
    for at, (least, rows) in enumerate(bins):
        height = (HEIGHT - BOTTOM - TOP) * rows / highest
        # a bar of one row among millions is still to be seen
        height = max(height, 1.5) if rows else 0.0
        x = round(LEFT + at * step, 1)
        y = round(HEIGHT - BOTTOM - height, 1)
        name = _short(least)
        bars.append(
            Bar(
                x=x,
                y=y,
                width=round(step * 0.86, 1),
                height=round(height, 1),
                name=name,
                rows=rows,
                named=at % every == 0,
            )
        )
    lines = [(_place(value, bins, step), name) for name, value in (marks or {}).items()]
    return Plot(width=WIDTH, height=HEIGHT, bars=tuple(bars), marks=tuple(line for line in lines if line[0] > 0))


def _place(value: int, bins: Sequence[tuple[int, int]], step: float) -> float:
    """Where a value is on the axis of a histogram; 0: beyond it."""
    for at, (least, _) in enumerate(bins):
        end = bins[at + 1][0] if at + 1 < len(bins) else 2 * least + 1
        if least <= value < end:
            return round(LEFT + (at + (value - least) / max(end - least, 1)) * step, 1)
    return 0.0


def ranked(counts: Mapping[str, int]) -> Plot | None:
    """Bars that lie, the largest first; what is beyond the first ones is one bar."""
    ordered = sorted(((rows, name) for name, rows in counts.items() if rows), key=lambda item: (-item[0], item[1]))
    if not ordered:
        return None
    if len(ordered) > MOST_BARS:
        rest = ordered[MOST_BARS - 1 :]
        ordered = [*ordered[: MOST_BARS - 1], (sum(rows for rows, _ in rest), f"{len(rest)} others")]
    band, begin = 24.0, 170.0
    highest = max(rows for rows, _ in ordered)
    bars = tuple(
        Bar(
            x=begin,
            y=at * band + 4,
            width=round(max((WIDTH - begin - 70) * rows / highest, 1.5), 1),
            height=band - 8,
            name=name if len(name) <= 24 else name[:23] + "…",
            rows=rows,
        )
        for at, (rows, name) in enumerate(ordered)
    )
    return Plot(width=WIDTH, height=band * len(ordered) + 4, bars=bars)


def _short(value: int) -> str:
    """`900`, `1.4k`, `23k`"""
    if value < 1000:
        return str(value)
    return f"{value / 1000:.1f}k" if value < 10_000 else f"{value // 1000}k"
