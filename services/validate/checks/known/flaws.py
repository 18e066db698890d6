"""Rows with a text that nobody would write on purpose."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from services.validate.checks.known import KnownLines
from services.validate.domain.findings import Finding
from services.validate.domain.survey.flaws import BITS, FLAWS
from services.validate.domain.survey.surveyed import Surveyed, looked_up


class Flaws(KnownLines):
    """Warns of each flaw of a row. What most rows have is a warning of the file alone (`about`)."""

    name = "flaws"

    def lines(self, surveyed: Surveyed) -> Sequence[int]:
        return surveyed.flawed

    def all_of(self, line: int, surveyed: Surveyed) -> Iterable[Finding]:
        flaws = looked_up(surveyed.flawed, surveyed.flaws, line) or 0
        for flaw in FLAWS:
            if flaws & BITS[flaw.code]:
                yield Finding(flaw.code, "", flaw.text, flaw.remedy, "warning")
