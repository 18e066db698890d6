"""Exact duplicates: the first is used, the others are dropped and counted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row, identify
from services.validate.domain.findings import Finding

DUPLICATE = "duplicate"


class Duplicates(Check):
    """Drops repeated examples. A repeated example would get more weight in training by accident, and a copy in two
    splits would make the test worthless. To train on every example more often, a user raises `n_epochs`."""

    name = "duplicates"
    drops: ClassVar = {DUPLICATE: "are exact duplicates", "in_training_file": "are in the training file too"}

    def row(self, row: Row) -> Iterator[Finding]:
        identify(row)
        context = self.context
        if context.training is not None and context.training.holds(row.group):
            text, remedy = "this example is in the training file too", "validate on other examples than you train on"
            yield Finding("in_training_file", "", text, remedy, "warning", drops=True)
            return
        first = context.seen.setdefault(row.example, row.line)
        if first != row.line:
            text, remedy = f"is the same example as line {first}", "remove it; raise n_epochs to train on it more often"
            yield Finding(DUPLICATE, "", text, remedy, "warning", drops=True)
        elif row.group != row.example:
            context.groups.add(row.group)
