"""What became of a file: how it was read, what was left out and why. The document `report.json`, and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.ingest.domain.mining.forms import FORMS, FormName
from services.ingest.domain.mining.left_out import WORDS, LeftOut, Reason
from services.ingest.domain.mining.turns import Cut
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


class CutTurns(FrozenModel):
    """The turns at one end of conversations that were cut off. The rest of each became an example."""

    words: str
    """They follow the number of turns: `after the last answer`."""
    turns: int
    examples: int
    """Those that the turns were cut off of."""
    first: tuple[int, ...]
    """The rows that the first of them begin with."""


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
    cut: tuple[CutTurns, ...] = ()
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
        if self.cut:
            yield f"Cut off: {'; '.join(map(self._where, self.cut))}."
        for note in self.notes:
            yield f"{note[:1].upper()}{note[1:]}."

    def _mapped(self) -> str:
        parts = [f"{target} from {' and '.join(columns)}" for target, columns in self.mapping.items()]
        return f" ({', '.join(parts)})" if parts else ""

    def _why(self, left: LeftOutRows) -> str:
        detail = f": {left.detail}" if left.detail else ""
        return f"{left.rows:,} {left.words} ({self._rows(left.first, left.rows)}{detail})"

    def _where(self, cut: CutTurns) -> str:
        where = self._rows(cut.first, cut.examples)
        return f"{_counted(cut.turns, 'turn')} {cut.words} of {_counted(cut.examples, 'example')} ({where})"

    def _rows(self, first: tuple[int, ...], count: int) -> str:
        return f"{self.unit} {', '.join(f'{number:,}' for number in first)}{', …' if count > len(first) else ''}"


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


class Cuts:
    """Counts the turns that are cut off of examples."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, int, list[int]]] = {}

    def add(self, number: int, cut: Cut) -> None:
        """Count what was cut off of an example that begins with the row `number`."""
        kinds = (
            ("before the first question", cut.unasked),
            ("after the last answer", cut.unanswered),
            ("with another system prompt", cut.systems),
        )
        for words, turns in kinds:
            if turns:
                so_far, examples, first = self._found.get(words, (0, 0, []))
                if len(first) < SHOWN_ROWS:
                    first.append(number)
                self._found[words] = so_far + turns, examples + 1, first

    def report(self) -> tuple[CutTurns, ...]:
        """Most turns first."""
        found = [
            CutTurns(words=words, turns=turns, examples=examples, first=tuple(sorted(first)))
            for words, (turns, examples, first) in self._found.items()
        ]
        return tuple(sorted(found, key=lambda cut: -cut.turns))
