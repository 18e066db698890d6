"""The geometry of the plots of a sweep: the validation losses of all trials, and the loss by each parameter."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

from services.api.domain.sweeps.space import Number, Range
from services.api.domain.sweeps.standing import Standing
from shared.events import FrozenModel

WIDTH, HEIGHT = 720.0, 300.0
SMALL_WIDTH, SMALL_HEIGHT = 260.0, 180.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 22.0, 12.0, 34.0
TICKS = 4
FAR = 3.0
"""A loss so many times as far above the lowest as the median is, is drawn at the top: one training that diverged would
press all others into a line."""


class Mark(FrozenModel):
    """A trial as a point, in units of the viewBox."""

    number: int
    x: float
    y: float
    status: str
    name: str


class Line(FrozenModel):
    """A trial as a line; `points` as an SVG polyline has them."""

    number: int
    points: str
    status: str
    name: str


class Plot(FrozenModel):
    """What the template needs to draw a plot. `xs`, `ys`: ticks as (place, label)."""

    title: str
    width: float
    height: float
    xs: tuple[tuple[float, str], ...]
    ys: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...] = ()
    marks: tuple[Mark, ...] = ()

    @property
    def left(self) -> float:
        return LEFT

    @property
    def bottom(self) -> float:
        return self.height - BOTTOM


class Axis:
    """Values to places. `low` is at `start`, `high` at `end`; what is beyond is drawn at the edge."""

    def __init__(self, low: float, high: float, start: float, end: float, *, log: bool = False) -> None:
        self._log = log
        self.low, self.high = low, high if high > low else low + (abs(low) * 0.1 or 1.0)
        self._start, self._end = start, end

    def place(self, value: float) -> float:
        share = (self._scaled(value) - self._scaled(self.low)) / (self._scaled(self.high) - self._scaled(self.low))
        return round(self._start + min(max(share, 0.0), 1.0) * (self._end - self._start), 1)

    def ticks(self) -> tuple[tuple[float, str], ...]:
        steps = [index / TICKS for index in range(TICKS + 1)]
        if self._log:
            values = [self.low * (self.high / self.low) ** step for step in steps]
        else:
            values = [self.low + (self.high - self.low) * step for step in steps]
        return tuple((self.place(value), f"{value:.3g}") for value in values)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self._log else value


def curves(standings: Sequence[Standing]) -> Plot | None:
    """The validation losses of all trials by how much of their trainings is done. None: there is none yet."""
    shown = [standing for standing in standings if standing.points]
    if not shown:
        return None
    x = Axis(0.0, 1.0, LEFT, WIDTH - RIGHT)
    y = _losses([point.valid_loss for standing in shown for point in standing.points], HEIGHT)
    lines = tuple(
        Line(
            number=standing.number,
            points=" ".join(f"{x.place(point.fraction)},{y.place(point.valid_loss)}" for point in standing.points),
            status=standing.status,
            name=_name(standing),
        )
        for standing in shown
    )
    ends = tuple(
        Mark(
            number=standing.number,
            x=x.place(standing.points[-1].fraction),
            y=y.place(standing.points[-1].valid_loss),
            status=standing.status,
            name=_name(standing),
        )
        for standing in shown
    )
    quarters = tuple((x.place(share), f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0))
    title = "Validation loss by the share of the training that is done"
    return Plot(title=title, width=WIDTH, height=HEIGHT, xs=quarters, ys=y.ticks(), lines=lines, marks=ends)


def by_parameter(standings: Sequence[Standing], space: Mapping[str, Range | tuple[Number, ...]]) -> list[Plot]:
    """For each parameter, the loss of every trial that has one."""
    shown = [(standing, loss) for standing in standings if (loss := loss_of(standing)) is not None]
    if not shown:
        return []
    y = _losses([loss for _, loss in shown], SMALL_HEIGHT)
    return [_scatter(name, domain, shown, y) for name, domain in space.items()]


def loss_of(standing: Standing) -> float | None:
    """The loss that a trial is judged by: the lowest, also of one that was ended early."""
    if standing.valid_loss is not None:
        return standing.valid_loss
    return min((point.valid_loss for point in standing.points), default=None)


def _scatter(name: str, domain: Range | tuple[Number, ...], shown: Sequence[tuple[Standing, float]], y: Axis) -> Plot:
    start, end = LEFT + 8, SMALL_WIDTH - RIGHT
    if isinstance(domain, Range):
        axis = Axis(domain.low, domain.high, start, end, log=domain.log)
        xs = axis.ticks()
        places = {standing.number: axis.place(standing.parameters[name]) for standing, _ in shown}
    else:
        # choices are apart from each other by one step, however far their values are
        ordered = sorted(domain)
        step = (end - start) / max(len(ordered) - 1, 1)
        at = {value: round(start + index * step, 1) for index, value in enumerate(ordered)}
        xs = tuple((place, f"{value:g}") for value, place in at.items())
        places = {standing.number: at.get(standing.parameters[name], start) for standing, _ in shown}
    marks = tuple(
        Mark(
            number=standing.number,
            x=places[standing.number],
            y=y.place(loss),
            status=standing.status,
            name=_name(standing),
        )
        for standing, loss in shown
    )
    return Plot(title=name, width=SMALL_WIDTH, height=SMALL_HEIGHT, xs=xs, ys=y.ticks(), marks=marks)


def _losses(losses: Sequence[float], height: float) -> Axis:
    low, median = min(losses), statistics.median(losses)
    high = min(max(losses), low + FAR * (median - low)) if median > low else max(losses)
    return Axis(low, high, height - BOTTOM, TOP)


def _name(standing: Standing) -> str:
    settings = ", ".join(f"{name} {value:g}" for name, value in standing.parameters.items())
    loss = loss_of(standing)
    told = "" if loss is None else f", validation loss {loss:.4f}"
    return f"trial {standing.number} ({standing.status}){told}: {settings}"
