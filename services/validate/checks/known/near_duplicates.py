"""Near-duplicates within a file, and between validation and training file, by the policies `checks.near_duplicates` and
`checks.leaks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import ClassVar

from services.validate.checks.base import Check, Context
from services.validate.domain.content import Row, Turn
from services.validate.domain.findings import Finding, Severity
from services.validate.domain.survey.surveyed import Surveyed, places
from services.validate.plain import PlainRows

NEAR_DUPLICATE, LEAK = "near_duplicate", "leak"


class NearDuplicates(Check):
    """Rows that differ from an earlier one in a few words, and rows to validate on that are nearly the same as one that
    is trained on. The survey has found them. Near-duplicates are linked, so that the split keeps them together."""

    name = "near_duplicates"
    drops: ClassVar = {
        NEAR_DUPLICATE: "are nearly the same as an earlier row",
        LEAK: "are nearly the same as a row of the training file",
    }
    # after all checks that drop rows: the first row of a cluster that is left is the one that stays
    needs_tokens = True
    by_row = False

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._kept: dict[int, int] = {}

    def row(self, row: Row) -> Iterable[Finding]:
        if (surveyed := self.context.surveyed) is None:
            return ()
        if (leak := self._leak(row.line, surveyed)) is not None:
            return (leak,)
        if (cluster := surveyed.cluster(row.line)) is None:
            return ()
        row.turns = _linked(row.turns, row.group, cluster)
        found = self._repeated(row.line, cluster)
        return () if found is None else (found,)

    def plain(self, rows: PlainRows) -> Iterator[tuple[int, Finding]]:
        if (surveyed := self.context.surveyed) is None:
            return
        known = {*places(rows.lines, surveyed.leaked), *places(rows.lines, surveyed.members)}
        for place in sorted(known):
            row = rows.row(place)
            for finding in self.row(row):
                yield place, finding
            if row.turns:
                rows.turns[place] = row.turns

    def _repeated(self, line: int, cluster: int) -> Finding | None:
        first = self._kept.setdefault(cluster, line)
        if first == line:
            return None
        policy = self.context.spec.checks.near_duplicates
        text = f"is nearly the same as line {first}"
        remedy = "remove it, write another example, or set checks.near_duplicates to drop"
        return Finding(NEAR_DUPLICATE, "", text, remedy, _severity(policy), policy == "drop")

    def _leak(self, line: int, surveyed: Surveyed) -> Finding | None:
        if (trained := surveyed.leak(line)) is None:
            return None
        policy = self.context.spec.checks.leaks
        text = f"is nearly the same as line {trained} of the training file, so its loss shows nothing"
        remedy = "validate on other examples than you train on, or set checks.leaks to drop"
        return Finding(LEAK, "", text, remedy, _severity(policy), policy == "drop")


def _linked(turns: tuple[Turn, ...], group: bytes, cluster: int) -> tuple[Turn, ...]:
    """The turns of a row and one more, which all rows of its cluster teach, and no other row."""
    if not turns:
        turns = (Turn(int.from_bytes(group[:8], "little"), trained=True),)
    asked = any(turn.trained and turn.asked for turn in turns)
    return (*turns, Turn(_FIRST - cluster, trained=True, asked=asked))


_FIRST = 2**64 - 2


def _severity(policy: str) -> Severity:
    return "error" if policy == "fail" else "warning"
