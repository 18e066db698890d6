"""Which flaws of the rows of a file are told, and of which rows."""

from __future__ import annotations

from array import array

from services.validate.domain.survey.facts import Lines
from services.validate.domain.survey.flaws import BITS, FLAWS, OF_LABELS, is_style, is_usual
from shared.events import TaskKind


def told(
    lines: array[int], flaws: array[int], rows: int, task: TaskKind
) -> tuple[array[int], array[int], dict[str, Lines]]:
    """The rows to warn of and their flaws, as bits, and how many rows have each flaw. `lines`: those with flaws, of
    `rows` rows. What most rows have is counted and not told of each; a style, or what is usual for labels, is neither.
    """
    ignored = OF_LABELS if task == "labels" else 0
    having = {flaw.code: array("I") for flaw in FLAWS}
    for line, bits in zip(lines, flaws, strict=True):
        for flaw in FLAWS:
            if bits & BITS[flaw.code]:
                having[flaw.code].append(line)
    counted, of_all = dict[str, Lines](), 0
    for flaw in FLAWS:
        found = having[flaw.code]
        if is_style(flaw, len(found), rows):
            ignored |= BITS[flaw.code]
        elif found and not ignored & BITS[flaw.code]:
            counted[flaw.code] = Lines.of(found)
            if is_usual(len(found), rows):
                of_all |= BITS[flaw.code]
    kept_lines, kept_flaws = array("I"), array("I")
    for line, bits in zip(lines, flaws, strict=True):
        if left := bits & ~(ignored | of_all):
            kept_lines.append(line)
            kept_flaws.append(left)
    return kept_lines, kept_flaws, counted
