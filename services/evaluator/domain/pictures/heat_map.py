"""The geometry of a heat map: a confusion matrix, in which the diagonal holds what is right."""

from __future__ import annotations

from services.evaluator.domain.kinds.confusion import Confusion
from shared.events import FrozenModel

LEFT, TOP = 150.0, 120.0
"""Room for the names of the labels."""
NAME_CHARS = 22
WIDTH = 560.0
"""Of the matrix; a cell has an equal share of it, within bounds."""
CELL = (9.0, 46.0)
NUMBERS_FROM = 20.0
"""In cells of at least this size the counts are written."""
OPACITY, UNDER_NUMBERS = (0.15, 1.0), (0.08, 0.45)
"""Of the cells with the smallest and the largest share. Under a darker one no number could be read."""


class Cell(FrozenModel):
    """One cell that is not empty. `opacity`: of its color, by its share of the answers to its row."""

    x: float
    y: float
    right: bool
    opacity: float
    count: int
    says: str


class Name(FrozenModel):
    """The name of a row or column at its middle."""

    at: float
    text: str
    whole: str


class HeatMap(FrozenModel):
    """Everything that the template needs, in units of the viewBox."""

    width: float
    height: float
    left: float = LEFT
    top: float = TOP
    size: float
    numbers: bool
    font: float
    cells: tuple[Cell, ...]
    rows: tuple[Name, ...]
    columns: tuple[Name, ...]


def heat_map(matrix: Confusion) -> HeatMap:
    """Place every cell. The darkness of a cell is its share of its row, so that rare labels show as well as common
    ones."""
    size = round(min(max(WIDTH / max(len(matrix.columns), 1), CELL[0]), CELL[1]), 2)
    numbers = size >= NUMBERS_FROM
    pale, dark = UNDER_NUMBERS if numbers else OPACITY
    cells = tuple(
        Cell(
            x=LEFT + size * column,
            y=TOP + size * row,
            right=right == given,
            opacity=round(pale + (dark - pale) * count / sum(line), 3),
            count=count,
            says=f"{count} of {sum(line)} “{right}” were answered “{given}”",
        )
        for row, (right, line) in enumerate(zip(matrix.rows, matrix.counts, strict=True))
        for column, (given, count) in enumerate(zip(matrix.columns, line, strict=True))
        if count
    )
    return HeatMap(
        width=LEFT + size * len(matrix.columns) + 70,
        height=TOP + size * len(matrix.rows) + 8,
        size=size,
        numbers=numbers,
        font=round(min(12.5, max(size * 0.8, 7.0)), 1),
        cells=cells,
        rows=tuple(_name(TOP + size * (place + 0.5), label) for place, label in enumerate(matrix.rows)),
        columns=tuple(_name(LEFT + size * (place + 0.5), label) for place, label in enumerate(matrix.columns)),
    )


def _name(at: float, label: str) -> Name:
    cut = label if len(label) <= NAME_CHARS else f"{label[: NAME_CHARS - 1]}…"
    return Name(at=round(at, 2), text=cut, whole=label)
