"""Near-duplicates within a file, and between validation and training file, by the policies `checks.near_duplicates` and
`checks.leaks`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, Severity
from services.validate.domain.links import Turn
from services.validate.domain.survey.surveyed import Surveyed

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

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._kept: dict[int, int] = {}

    def row(self, row: Row) -> Iterable[Finding]:
        surveyed = self.context.surveyed
        if surveyed is None:
            return ()
        if (found := self._leak(row, surveyed)) is not None:
            return (found,)
        cluster = surveyed.cluster(row.line)
        if cluster is None:
            return ()
        first = self._kept.setdefault(cluster, row.line)
        if first == row.line:
            self._link(row, cluster)
            return ()
        policy = self.context.spec.checks.near_duplicates
        if policy != "drop":
            self._link(row, cluster)
        text = f"is nearly the same as line {first}"
        remedy = "remove it, write another example, or set checks.near_duplicates to drop"
        return (Finding(NEAR_DUPLICATE, "", text, remedy, _severity(policy), policy == "drop"),)

    def _leak(self, row: Row, surveyed: Surveyed) -> Finding | None:
        line = surveyed.leak(row.line)
        if line is None:
            return None
        policy = self.context.spec.checks.leaks
        text = f"is nearly the same as line {line} of the training file, so its loss shows nothing"
        remedy = "validate on other examples than you train on, or set checks.leaks to drop"
        return Finding(LEAK, "", text, remedy, _severity(policy), policy == "drop")

    def _link(self, row: Row, cluster: int) -> None:
        # a turn that all rows of the cluster teach, and no row without near-duplicates
        asked = any(turn.trained and turn.asked for turn in row.turns)
        row.turns = (*row.turns, Turn(_FIRST - cluster, trained=True, asked=asked))


_FIRST = 2**64 - 2


def _severity(policy: str) -> Severity:
    return "error" if policy == "fail" else "warning"
