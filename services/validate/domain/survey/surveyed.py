"""What the survey of a file found, as the checks and the report need it."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from services.validate.domain.survey.facts import Facts
from shared.privacy import Spotted


def _lines() -> array[int]:
    return array("I")


@dataclass
class Surveyed:
    """One file. All arrays of lines are sorted; lines count from 1.

    `private` describes the private places of the first rows that have some. `members` are the rows that have
    near-duplicates in this file or in the other one, `clusters` the line of the first row of each one's cluster.
    `leaked`: rows of a validation file with a near-duplicate in the training file, `leaked_from` its line there.
    `flawed`: rows with flaws that not most rows have, `flaws` these, as bits. `labels`: a number for the label of every
    row, in order, 0 if it has none; empty where the answers are no labels.
    """

    facts: Facts
    personal: array[int] = field(default_factory=_lines)
    secret: array[int] = field(default_factory=_lines)
    private: Mapping[int, tuple[Spotted, ...]] = field(default_factory=dict)
    redacted: frozenset[str] = frozenset()
    members: array[int] = field(default_factory=_lines)
    clusters: array[int] = field(default_factory=_lines)
    leaked: array[int] = field(default_factory=_lines)
    leaked_from: array[int] = field(default_factory=_lines)
    refusing: array[int] = field(default_factory=_lines)
    flawed: array[int] = field(default_factory=_lines)
    flaws: array[int] = field(default_factory=_lines)
    labels: array[int] = field(default_factory=_lines)

    def cluster(self, line: int) -> int | None:
        """The line of the first row that is nearly the same, or None. It may be the row's own."""
        return looked_up(self.members, self.clusters, line)

    def leak(self, line: int) -> int | None:
        """The line of the training file that is nearly the same as this line of the validation file."""
        return looked_up(self.leaked, self.leaked_from, line)


def holds(lines: Sequence[int], line: int) -> bool:
    """Whether a sorted sequence has a line."""
    at = bisect_left(lines, line)
    return at < len(lines) and lines[at] == line


def places(lines: Sequence[int], wanted: Sequence[int]) -> Iterator[int]:
    """Where in `lines` those stand that are `wanted`; both are sorted. It takes no time where none are."""
    if not lines:
        return
    for line in wanted[bisect_left(wanted, lines[0]) : bisect_right(wanted, lines[-1])]:
        at = bisect_left(lines, line)
        if lines[at] == line:
            yield at


def looked_up(lines: Sequence[int], values: Sequence[int], line: int) -> int | None:
    """The value beside a line in a sorted sequence."""
    at = bisect_left(lines, line)
    return values[at] if at < len(lines) and lines[at] == line and at < len(values) else None
