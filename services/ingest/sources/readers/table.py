"""What every reader of files gives: columns, a form, and numbered rows; and where the header of a table is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from services.ingest.domain.mining.forms import Form, form_of
from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import MOST_COLUMNS, Record
from services.ingest.sources.limits import SAMPLE_ROWS, refused
from shared.errors import InputError
from shared.events import Source

HEADER_ROWS = 20
"""The header is one of the first rows."""

Row = tuple[int, Record | LeftOut]
"""The number of a row in its file, and what it holds, or why nobody knows."""
Cells = Sequence[str | None]


class Reading(Protocol):
    """One file that is understood. `unit` is what its rows are called, such as `line`; `share` is how much is read."""

    words: str
    notes: list[str]
    unit: str
    columns: list[str]
    form: Form
    sample: list[Record]

    @property
    def share(self) -> float: ...

    def rows(self) -> Iterator[Row]: ...


@dataclass(frozen=True)
class Header:
    """`rows`: how many rows belong to the header or come before it."""

    rows: int
    columns: list[str]
    form: Form
    notes: list[str] = field(default_factory=list)


def record_of(columns: list[str], cells: Cells) -> Record:
    """The cells of a row by their columns.

    Raises:
        LeftOut: there are more cells than columns.
    """
    if len(cells) > len(columns) and any(cells[len(columns) :]):
        raise LeftOut("cells", f"{len(cells)} cells, but the header has {len(columns)}")
    return dict(zip(columns, cells, strict=False))


def find_header(rows: Sequence[Cells], source: Source) -> Header:
    """Find the header among the first rows of a table: the last row with names that are understood, which has more of
    them than any above it. There may be titles above it, and it may consist of two rows, of which the upper one has
    merged cells.

    Raises:
        InputError: no row is understood as a header.
    """
    widest = max((len(row) for row in rows), default=0)
    if widest > MOST_COLUMNS:
        raise refused(f"The table has {widest:,} columns; more than {MOST_COLUMNS:,} are not read.")
    problem: InputError | None = None
    found: Header | None = None
    for index, row in enumerate(rows[:HEADER_ROWS]):
        filled = _filled(row)
        if filled < 2 or not all(_filled(each) < filled for each in rows[:index]):
            continue  # a title, or a row of the table
        above = rows[index - 1] if index and _filled(rows[index - 1]) > 1 else None
        choices = [row, *([_merged(above, row)] if above else [])]
        for cells in reversed(choices):
            columns = _named(cells)
            sample = [dict(zip(columns, cells, strict=False)) for cells in rows[index + 1 :]]
            try:
                form = form_of(columns, sample, source)
                _check_twins(cells, columns, form, source)
            except InputError as error:
                problem = problem or error
                continue
            notes = [f"the header is in row {index + 1}"] if index else []
            found = Header(index + 1, columns, form, notes)
            break
    if found is not None:
        return found
    if problem is None:
        raise refused(_no_table(rows))
    raise problem


def sample_of(reading: Reading) -> list[Record]:
    """The first rows of a file."""
    found: list[Record] = []
    for _, record in reading.rows():
        if not isinstance(record, LeftOut):
            found.append(record)
        if len(found) == SAMPLE_ROWS:
            break
    return found


def _check_twins(cells: Cells, columns: list[str], form: Form, source: Source) -> None:
    """Check that the columns which the form reads are the only ones of their names, or named in the settings.

    Raises:
        InputError: it is not known which of several columns is meant.
    """
    read = {column for names in form.columns.values() for column in names}
    given = {name for wanted in source.columns.values() for name in ([wanted] if isinstance(wanted, str) else wanted)}
    places: dict[str, list[int]] = {}
    for place, cell in enumerate(cells):
        places.setdefault(_text(cell), []).append(place)
    for name, twins in places.items():
        named = [columns[place] for place in twins]
        if not name or len(twins) == 1 or not read & set(named) or given & set(named):
            continue
        where = " and ".join(str(place + 1) for place in twins)
        choice = " or ".join(f'"{each}"' for each in named)
        raise InputError(
            "invalid_training_file",
            f'Columns {where} are both named "{name}", so it is not known which is meant: rename one, or choose one as '
            f"{choice} in the settings beside the file, such as `source: {{columns: {{{_target_of(named, form)}: "
            f"'{named[-1]}'}}}}`.",
            "source.columns",
        )


def _target_of(named: list[str], form: Form) -> str:
    return next(target for target, names in form.columns.items() if set(names) & set(named))


OTHER_FORMATS = {
    "XML or HTML": re.compile(r"<[!?A-Za-z]"),
    "Markdown": re.compile(r"#{1,6} |[*-] \S|\*\*"),
    "YAML": re.compile(r"---$|[\w-]+:(\s|$)"),
}
"""What people also drop, and how its first line begins."""


def _no_table(rows: Sequence[Cells]) -> str:
    """Why no row has two columns."""
    first = next((_text(cell) for row in rows for cell in row if _text(cell)), "")
    for kind, begins in OTHER_FORMATS.items():
        if begins.match(first):
            return f"The file looks like {kind}, which is not read: make it JSONL, JSON, CSV, TSV, Parquet or Excel."
    return "The table has fewer than two columns, so no question and answer; is the delimiter right?"


def _text(cell: str | None) -> str:
    return " ".join((cell or "").replace("\ufeff", "").split())[:200]


def _filled(row: Cells) -> int:
    return sum(1 for cell in row if cell and cell.strip())


def _merged(above: Cells, row: Cells) -> list[str]:
    """The names of a header of two rows: a merged cell stands above several columns, but has its text in the first."""
    names, group = [], ""
    for column, cell in enumerate(row):
        upper = (above[column] if column < len(above) else None) or ""
        group = upper.strip() or group
        names.append(" ".join(part for part in (group, (cell or "").strip()) if part))
    return names


def _named(row: Cells) -> list[str]:
    """A name for each column: none is empty, and none is there twice."""
    names: dict[str, None] = {}
    for position, cell in enumerate(row, start=1):
        name = _text(cell) or f"column {position}"
        unique, number = name, 2
        while unique in names:
            unique, number = f"{name} ({number})", number + 1
        names[unique] = None
    return list(names)
