"""Exact duplicates: the first is used, the others are dropped and counted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.identity import identify
from services.validate.domain.repair import repair
from services.validate.plain import PlainRows

DUPLICATE = "duplicate"


class Duplicates(Check):
    """Drops repeated examples. A repeated example would get more weight in training by accident, and a copy in two
    splits would make the test worthless. To train on every example more often, a user raises `n_epochs`."""

    name = "duplicates"
    by_row = False
    drops: ClassVar = {DUPLICATE: "are exact duplicates", "in_training_file": "are in the training file too"}

    def row(self, row: Row) -> Iterable[Finding]:
        if not row.group:
            repair(row)
            identify(row)
        context = self.context
        if context.training is not None and context.training.holds(row.group):
            text, remedy = "this example is in the training file too", "validate on other examples than you train on"
            return (Finding("in_training_file", "", text, remedy, "warning", drops=True),)
        first = context.seen.first(row.example, row.line)
        if first != row.line:
            return (_repeats(first),)
        if row.group != row.example:
            context.groups.first(row.group, row.line)
        return ()

    def plain(self, rows: PlainRows) -> Iterable[tuple[int, Finding]]:
        if self.context.training is not None:
            return [(place, found) for place in range(len(rows)) for found in self.row(rows.row(place))]
        repeated = self.context.seen.first_of_many(rows.groups, rows.lines)
        return [(place, _repeats(first)) for place, first in repeated]


def _repeats(first: int) -> Finding:
    text, remedy = f"is the same example as line {first}", "remove it; raise n_epochs to train on it more often"
    return Finding(DUPLICATE, "", text, remedy, "warning", drops=True)
