"""Checks of lines that the survey knows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding
from services.validate.domain.survey.surveyed import Surveyed, holds, places
from services.validate.plain import PlainRows


class KnownLines(Check):
    """A check that has something to say of some lines, and nothing of all others."""

    by_row = False

    def lines(self, surveyed: Surveyed) -> Sequence[int]:
        """The lines, sorted."""
        raise NotImplementedError

    def line(self, line: int, surveyed: Surveyed) -> Finding:
        """What there is to say of one of them."""
        raise NotImplementedError

    def all_of(self, line: int, surveyed: Surveyed) -> Iterable[Finding]:
        """The same, where there may be more to say."""
        return (self.line(line, surveyed),)

    def row(self, row: Row) -> Iterable[Finding]:
        surveyed = self.context.surveyed
        if surveyed is None or not holds(self.lines(surveyed), row.line):
            return ()
        return self.all_of(row.line, surveyed)

    def plain(self, rows: PlainRows) -> Iterator[tuple[int, Finding]]:
        if (surveyed := self.context.surveyed) is not None:
            for place in places(rows.lines, self.lines(surveyed)):
                for finding in self.all_of(rows.lines[place], surveyed):
                    yield place, finding
