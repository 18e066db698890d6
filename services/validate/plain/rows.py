"""Plain rows as columns, and each by itself where somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from services.validate.domain.content import Row, Turn
from services.validate.domain.identity import DIGEST_BYTES
from services.validate.reader import Block


@dataclass
class PlainRows:
    """Some plain rows of one block, in the order of their lines. See `Row` for what the columns mean.

    `places` are those of their lines in the block. `groups` has 16 bytes a row. `turns` has those of the rows that
    answer more than once, by the row's place among the rows. `indexes` are set when the rows are counted.
    """

    block: Block
    places: Sequence[int]
    groups: bytes
    prompts: Sequence[int]
    answers: Sequence[int]
    turns: dict[int, tuple[Turn, ...]]
    indexes: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.places)

    @cached_property
    def lines(self) -> list[int]:
        """The numbers of their lines."""
        first = self.block.first
        return [first + place for place in self.places]

    def raw(self, number: int) -> bytes:
        """The bytes of a row."""
        return self.block.line(self.places[number])

    def rows(self) -> Iterator[Row]:
        """The rows, each by itself."""
        return map(self.row, range(len(self)))

    def row(self, number: int) -> Row:
        raw = self.raw(number)
        row = Row(self.lines[number], None, "chat", len(raw), raw)
        row.index = self.indexes[number]
        row.group = row.example = self._group(number)
        row.turns = self.turns.get(number, ())
        row.prompt, row.answer = self.prompts[number], self.answers[number]
        return row

    def part(self, begin: int, end: int) -> PlainRows:
        """The rows from `begin` to `end`."""
        return PlainRows(
            self.block,
            self.places[begin:end],
            self.groups[begin * DIGEST_BYTES : end * DIGEST_BYTES],
            self.prompts[begin:end],
            self.answers[begin:end],
            {number - begin: turns for number, turns in self.turns.items() if begin <= number < end},
            self.indexes[begin:end],
        )

    def chosen(self, numbers: Sequence[int]) -> PlainRows:
        """The rows with these numbers, which ascend."""
        return PlainRows(
            self.block,
            [self.places[number] for number in numbers],
            b"".join([self._group(number) for number in numbers]),
            [self.prompts[number] for number in numbers],
            [self.answers[number] for number in numbers],
            {new: self.turns[number] for new, number in enumerate(numbers) if number in self.turns},
            [self.indexes[number] for number in numbers] if self.indexes else (),
        )

    def _group(self, number: int) -> bytes:
        return self.groups[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]
