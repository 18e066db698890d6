"""Where the sequences of a batch go: into rows of one length, several beside each other, best-fit-decreasing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

WINDOW = 256
"""So many items are placed together. More would hardly fill the rows better, and the time grows with the square."""

Place = tuple[int, int]
"""The index of an item, and which of its sequences."""


@dataclass(frozen=True)
class RowShape:
    """What rows look like. `at_least`: they are made so long, in tokens, if a micro-batch may have as many; rows are
    longer where a sequence is. `multiple`: their length is rounded up to one; `kept_multiple`: the number of predicted
    positions is. `packed`: a row may have several sequences. `most_documents`: so many sequences may be in a
    micro-batch. `balanced`: the micro-batches of a step have about as many tokens each, instead of as many as go into
    the first ones."""

    at_least: int = 1
    multiple: int = 1
    kept_multiple: int = 1
    packed: bool = True
    most_documents: int = 2**16
    balanced: bool = False


MASKED_GPU_ROW = 2048
"""On a GPU, where attention needs a matrix of all pairs of tokens of a row."""
WHOLE = 2**31
"""A micro-batch is one row."""


def row_shape(
    *, gpu: bool, varlen: bool, packed: bool, most_documents: int = 2**16, recorded: int | None = None
) -> RowShape:
    """The rows that suit a device, and an attention that either knows documents (`varlen`) or needs a matrix.
    `recorded`: what each shape launches is recorded, so there are few, whose lengths are multiples of this."""
    if not packed:
        return RowShape(packed=False)
    if varlen:
        if recorded is not None:
            return RowShape(at_least=WHOLE, multiple=recorded, kept_multiple=2048, most_documents=most_documents)
        return RowShape(at_least=WHOLE, multiple=128, most_documents=most_documents, balanced=True)
    if gpu:
        return RowShape(at_least=MASKED_GPU_ROW, multiple=8)
    return RowShape()  # longer rows cost attention to pairs of tokens that may not see each other, and save no padding


def shares(items: Sequence[int], lengths: Sequence[tuple[int, ...]], processes: int) -> list[Sequence[int]]:
    """The part of `items` that each of several processes computes: about as many tokens for each. `lengths`: the tokens
    of the sequences of each item. There may be fewer items than processes."""
    if processes == 1:
        return [items]
    parts: list[list[int]] = [[] for _ in range(processes)]
    filled = [0] * processes
    for item in sorted(items, key=lambda item: (-sum(lengths[item]), item)):
        least = filled.index(min(filled))
        parts[least].append(item)
        filled[least] += sum(lengths[item])
    return [*parts]


@dataclass(frozen=True)
class MicroBatch:
    """The rows that go through the model together: `items` in them, and what lies in each row of `length` tokens."""

    items: tuple[int, ...]
    rows: tuple[tuple[Place, ...], ...]
    length: int

    @property
    def tokens(self) -> int:
        """How many are computed, padding among them."""
        return len(self.rows) * self.length


def plan(
    order: Sequence[int], lengths: Sequence[tuple[int, ...]], most_tokens: int, shape: RowShape
) -> Iterator[MicroBatch]:
    """Place the items `order` into micro-batches of at most `most_tokens` computed tokens; what is longer gets one of
    its own. `lengths`: the tokens of each sequence of each item.

    An item is never split between micro-batches; its sequences may lie in different rows. The gradient of a batch does
    not depend on the order of its items, so the longest come first: memory runs out with the first micro-batch of a
    window or not at all, and the short ones fill the gaps.
    """
    for begin in range(0, len(order), WINDOW):
        window = sorted(order[begin : begin + WINDOW], key=lambda item: (-max(lengths[item]), item))
        opened: list[_Open] = []
        for item in window:
            offers = [(offer, number) for number, each in enumerate(opened) if (offer := each.offer(lengths[item]))]
            if offers:
                offer, number = min(offers)
                opened[number].accept(item, offer[1])
            else:
                opened.append(_Open(item, lengths, most_tokens, shape))
        if shape.balanced and len(opened) > 1:
            opened = _evened(window, lengths, most_tokens, shape, opened)
        yield from (each.closed() for each in opened)


def _evened(
    window: Sequence[int],
    lengths: Sequence[tuple[int, ...]],
    most_tokens: int,
    shape: RowShape,
    opened: list[_Open],
) -> list[_Open]:
    """As many micro-batches, each item in the one with the fewest tokens so far that has room; or `opened`, if that
    leaves no room for an item, or is no smaller."""
    found = [_Open(item, lengths, most_tokens, shape) for item in window[: len(opened)]]
    for item in window[len(opened) :]:
        for each in sorted(found, key=lambda each: each.tokens):
            if (offer := each.offer(lengths[item])) is not None:
                each.accept(item, offer[1])
                break
        else:
            return opened
    return min(opened, found, key=lambda micros: max(each.tokens for each in micros))


class _Open:
    """A micro-batch that is being filled."""

    def __init__(self, first: int, lengths: Sequence[tuple[int, ...]], most_tokens: int, shape: RowShape) -> None:
        self.lengths = lengths
        self.shape = shape
        self.length = max(*lengths[first], min(shape.at_least, most_tokens))
        self.most_rows = max(1, most_tokens // self.length)
        self.items: list[int] = []
        self.rows: list[list[Place]] = []
        self.spaces: list[int] = []
        self.documents = 0
        self.tokens = 0
        """Without padding."""
        alone = self.offer(lengths[first], however=True)
        assert alone is not None
        self.accept(first, alone[1])

    def offer(self, sequences: tuple[int, ...], *, however: bool = False) -> tuple[int, tuple[int, ...]] | None:
        """The rows that these sequences would go to, each into the fullest that takes it, after the space that stays
        free in them; None: there is no room. `however`: there must be, whatever the limits say."""
        if self.documents + len(sequences) > self.shape.most_documents and not however:
            return None
        spaces, rows, free = list(self.spaces), [], 0
        for length in sequences:
            best = min(((space, row) for row, space in enumerate(spaces) if space >= length), default=None)
            if best is None:
                if len(spaces) >= self.most_rows and not however:
                    return None
                spaces.append(self.length)
                best = (self.length, len(spaces) - 1)
            row = best[1]
            rows.append(row)
            spaces[row] = spaces[row] - length if self.shape.packed else -1
            free += max(0, spaces[row])
        return free, tuple(rows)

    def accept(self, item: int, rows: tuple[int, ...]) -> None:
        self.items.append(item)
        self.documents += len(rows)
        self.tokens += sum(self.lengths[item])
        for place, row in enumerate(rows):
            if row == len(self.rows):
                self.rows.append([])
                self.spaces.append(self.length)
            self.rows[row].append((item, place))
            self.spaces[row] = self.spaces[row] - self.lengths[item][place] if self.shape.packed else -1

    def closed(self) -> MicroBatch:
        rows = min(self.rows, self._balanced(), key=self._longest)
        length = -(-self._longest(rows) // self.shape.multiple) * self.shape.multiple
        return MicroBatch(tuple(self.items), tuple(tuple(row) for row in rows), length)

    def _balanced(self) -> list[list[Place]]:
        """As many rows, as equally full as can be, which may be shorter then."""
        rows: list[list[Place]] = [[] for _ in self.rows]
        filled = [0] * len(rows)
        places = [place for row in self.rows for place in row]
        for item, place in sorted(places, key=lambda each: (-self.lengths[each[0]][each[1]], each)):
            row = filled.index(min(filled))
            rows[row].append((item, place))
            filled[row] += self.lengths[item][place]
        return rows

    def _longest(self, rows: list[list[Place]]) -> int:
        return max(sum(self.lengths[item][place] for item, place in row) for row in rows)
