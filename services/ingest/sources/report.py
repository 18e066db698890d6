"""What became of a file: how it was read, what was left out and why. The document `report.json`, and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.ingest.domain.mining.forms import FORMS, FormName
from services.ingest.domain.mining.left_out import WORDS, LeftOut, Reason
from shared.events import FrozenModel

SHOWN_ROWS = 5
SHOWN_EXAMPLES = 3
SHOWN_COLUMNS = 100
DETAIL_CHARS = 300


class LeftOutRows(FrozenModel):
    """The rows that were left out for one reason."""

    reason: Reason
    words: str
    """They follow the number of rows: `have no answer`."""
    rows: int
    first: tuple[int, ...]
    """The numbers of the first of them in the file."""
    detail: str = ""
    """What it was in the first of them."""


class MiningReport(FrozenModel):
    """What was made of one file."""

    name: str
    words: str
    """How the file was read: what it is, in which encoding."""
    unit: str
    """What its rows are called: `line`, `row` or `item`."""
    form: FormName
    columns: tuple[str, ...]
    mapping: dict[str, tuple[str, ...]]
    """The columns that hold each part of an example."""
    group_by: str | None = None
    order_by: str | None = None
    filter: str | None = None
    rows: int
    examples: int
    left_out: tuple[LeftOutRows, ...] = ()
    notes: tuple[str, ...] = ()
    first: tuple[dict[str, Any], ...] = ()
    """The first examples, as they are trained on."""

    def sentences(self) -> Iterator[str]:
        """The report in plain words, for people."""
        yield f"{self.name} was read as {self.words}: {FORMS[self.form]}{self._mapped()}."
        made = f"{_counted(self.rows, 'row')} became {_counted(self.examples, 'example')}"
        if self.group_by:
            made += f" (rows with the same {self.group_by} are one conversation"
            made += f", ordered by {self.order_by})" if self.order_by else ", in the order of the file)"
        yield f"{made}." if not self.left_out else f"{made}; left out: {'; '.join(map(self._why, self.left_out))}."
        for note in self.notes:
            yield f"{note[:1].upper()}{note[1:]}."

    def _mapped(self) -> str:
        parts = [f"{target} from {' and '.join(columns)}" for target, columns in self.mapping.items()]
        return f" ({', '.join(parts)})" if parts else ""

    def _why(self, left: LeftOutRows) -> str:
        shown = ", ".join(f"{number:,}" for number in left.first)
        more = ", …" if left.rows > len(left.first) else ""
        detail = f": {left.detail}" if left.detail else ""
        return f"{left.rows:,} {left.words} ({self.unit} {shown}{more}{detail})"


def _counted(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


class Losses:
    """Counts the rows that are left out."""

    def __init__(self) -> None:
        self._rows: dict[Reason, tuple[int, list[int], str]] = {}

    def add(self, number: int, left: LeftOut, rows: int = 1) -> None:
        count, first, detail = self._rows.get(left.reason, (0, [], left.detail[:DETAIL_CHARS]))
        if len(first) < SHOWN_ROWS:
            first.append(number)
        self._rows[left.reason] = count + rows, first, detail

    def count(self, reason: Reason) -> int:
        return self._rows[reason][0] if reason in self._rows else 0

    def detail(self, reason: Reason) -> str:
        return self._rows[reason][2] if reason in self._rows else ""

    def report(self) -> tuple[LeftOutRows, ...]:
        """Most rows first."""
        found = [
            # half a surrogate pair stands for a byte that is no text; it cannot be written
            LeftOutRows(
                reason=reason,
                words=WORDS[reason],
                rows=rows,
                first=tuple(sorted(first)),
                detail=detail.encode("utf-8", "replace").decode(),
            )
            for reason, (rows, first, detail) in self._rows.items()
        ]
        return tuple(sorted(found, key=lambda left: -left.rows))
