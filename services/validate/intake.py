"""What is read of a file, in the order of its lines, and what is kept of the rows that are usable."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from services.validate.checks.base import Tally
from services.validate.columns import Links
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, Problems
from services.validate.domain.formats import Format, detect, mixed_formats, unknown_format
from services.validate.domain.parse import parse
from services.validate.domain.repair import repair
from services.validate.domain.report import BLANK
from services.validate.plain import PlainRows, plain_rows
from services.validate.reader import Block, Reader

_BLANK = Finding(BLANK, "", "the line is blank", "remove it", "warning")
REPAIRED = 2
"""Of `State.usable`: the row is usable, but not as its line has it."""
_SHORT = 16  # so few plain rows between others are quicker one by one


@dataclass
class State:
    """What is known of a file while it is read. The arrays have an entry per usable row, `usable` a byte per row.
    `groups` has the first 8 bytes of each row's group."""

    problems: Problems
    tally: Tally
    format: Format | None = None
    format_line: int | None = None
    blank: int = 0
    usable: bytearray = field(default_factory=bytearray)
    groups: array[int] = field(default_factory=lambda: array("Q"))
    links: Links = field(default_factory=Links)
    tokens: array[int] = field(default_factory=lambda: array("I"))
    histogram: Counter[int] = field(default_factory=Counter)
    longest: int = 0

    def begin(self, rows: int) -> range:
        """Count the next rows. Their places among the rows, from 0."""
        begin = len(self.usable)
        self.tally.rows += rows
        self.usable.extend(bytes(rows))
        return range(begin, begin + rows)

    def keep(self, row: Row, limit: int | None) -> None:
        """Take a usable row. `limit`: tokens of a sequence; what is beyond is cut."""
        self.tally.usable += 1
        self.usable[row.index] = REPAIRED if row.repaired else 1
        self.groups.frombytes(row.group[:8])
        if row.turns:
            self.links.add(row.turns)
        else:
            self.links.add_answers(row.group, {})
        cut = [min(tokens, limit or tokens) for tokens in row.sequences]
        self.tokens.append(sum(cut))
        self.longest = max([self.longest, *cut])

    def keep_plain(self, rows: PlainRows) -> None:
        """Take usable rows that were not tokenized."""
        count = len(rows)
        self.tally.usable += count
        if isinstance(rows.indexes, range):
            self.usable[rows.indexes.start : rows.indexes.stop] = b"\1" * count
        else:
            for index in rows.indexes:
                self.usable[index] = 1
        self.groups.frombytes(np.frombuffer(rows.groups, np.uint64)[::2].tobytes())
        self.links.add_answers(rows.groups, rows.turns)
        self.tokens.frombytes(bytes(count * self.tokens.itemsize))


def pieces(reader: Reader, state: State, advance: Callable[[], None]) -> Iterator[Row | PlainRows]:
    """The rows that are JSON objects in the format of the file, plain ones together; all others are recorded as
    problems."""
    for block in reader.blocks():
        advance()
        if block.blank:
            state.blank += block.blank
            state.problems.add_run(block.first, block.blank, _BLANK)
            continue
        rest = block
        if state.format is None:  # the first row tells it
            yield from _each(block, 0, 1, state)
            rest = block.after(1)
        plain = plain_rows(rest) if state.format == "chat" else None
        yield from _each(rest, 0, None, state) if plain is None else _mixed(rest, plain, state)


def _mixed(block: Block, plain: PlainRows, state: State) -> Iterator[Row | PlainRows]:
    """The rows of a block, of which some are plain, in their order."""
    place, begin = 0, 0
    while begin < len(plain):
        yield from _each(block, place, plain.places[begin], state)
        end = len(plain) if len(plain) == len(block.ends) else begin + 1
        while end < len(plain) and plain.places[end] == plain.places[end - 1] + 1:
            end += 1
        run = plain if end - begin == len(plain) else plain.part(begin, end)
        run.indexes = state.begin(len(run))
        if len(run) < _SHORT:
            yield from run.rows()
        else:
            yield run
        place, begin = plain.places[end - 1] + 1, end
    yield from _each(block, place, None, state)


def _each(block: Block, begin: int, end: int | None, state: State) -> Iterator[Row]:
    """The rows of the lines from place `begin` to `end`."""
    for line, raw in enumerate(block.lines(begin, end), start=block.first + begin):
        if (row := _row(line, raw, state)) is not None:
            yield row


def _row(line: int, raw: bytes | Finding, state: State) -> Row | None:
    if isinstance(raw, bytes) and not raw.strip():
        state.blank += 1
        state.problems.add(line, _BLANK)
        return None
    (index,) = state.begin(1)
    if isinstance(raw, Finding):
        state.problems.add(line, raw)
        return None
    value = parse(raw)
    if isinstance(value, list):
        for finding in value:
            state.problems.add(line, finding)
        return None
    found = detect(value)
    if state.format is None and found is not None:
        state.format, state.format_line = found, line
    if found is None or state.format is None:
        state.problems.add(line, unknown_format(value, state.format))
    elif found != state.format:
        state.problems.add(line, mixed_formats(found, state.format, state.format_line))
    else:
        row = Row(line, value, state.format, len(raw))
        row.index = index
        return row
    return None


def read_again(line: int, raw: bytes, form: Format) -> Row:
    """A usable row that was read before, repaired if it must be."""
    value = parse(raw)
    assert isinstance(value, dict), "the row was read before"
    row = Row(line, value, form, len(raw))
    repair(row)
    return row
