"""Reads the rows of the most frequent form many times faster than the rules of the domain do.

A plain row is a chat of messages with a role and a text, nothing else, that is right by every rule: a question, an
answer at its end, nothing empty. Here such a row is only recognised; every other is left to `domain.parse` and the
checks, which alone say what is wrong. So nothing may pass here that they would not pass, and a row that passes has the
digests that `domain.identity` gives. A test compares both ways on all kinds of rows.

What makes it quick: msgspec reads and writes; what can be asked of many rows at once is asked of all bytes of a block,
with numpy.

- Texts stay as they are in the line. So that they are canonical, no escape but the short ones may be in them (blocks
  with others are read as texts and written again), and the block must be UTF-8.
- msgspec takes a key that an object has twice. Each object is written again with every key once, so that a row with a
  second key has more quotes than what is written of it. That holds if no escape stands for a quote or for a letter.
- The first character of a text tells that it is not empty, unless it is white space, an escape, or one of the few bytes
  that begin white space outside ASCII; such rows are read once more.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from services.validate.domain.content import Row, Turn
from services.validate.domain.findings import Finding
from services.validate.domain.identity import DIGEST_BYTES, NO_TOOLS, Reading

Role = Literal["system", "developer", "user", "assistant"]


class _Raw(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: msgspec.Raw
    role: Role


class _RawRow(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Raw]


class _Text(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    content: str
    role: Role


class _TextRow(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: list[_Text]


_read_raw = msgspec.json.Decoder(_RawRow).decode
_read_text = msgspec.json.Decoder(_TextRow).decode
_append = msgspec.json.Encoder().encode_into

_ESCAPED = re.compile(rb"\\[u/]")
_UNCLEAR = re.compile(rb"\\u00(?:00|22|[67])")
"""Escapes of NUL, which no row may hold, of the quote, and of letters, which could write a key."""
_QUOTE, _COLON, _BACKSLASH = b'":\\'
_BETWEEN = b',{"content":'
_ROLE_END, _ASSISTANT, _USER = b"eau"  # the last letter of the key `role`, and the first of two roles

_UNSURE = np.zeros(256, bool)
"""First bytes of texts that may be empty: the closing quote, white space, an escape, and what begins U+0085, U+00A0,
U+1680, U+2000 and U+3000."""
_UNSURE[[*b'" \\', 0xC2, 0xE1, 0xE2, 0xE3]] = True

Numbers = NDArray[np.int64]


@dataclass(slots=True)
class PlainRows:
    """Some plain rows of one block, in the order of their lines, as columns. See `Row` for what they mean.

    `groups` has 16 bytes a row. `turns` has those of the rows that answer more than once, by the row's place.
    `indexes` are set when the rows are counted.
    """

    lines: list[int]
    raw: list[bytes]
    groups: bytes
    prompts: list[int]
    answers: list[int]
    turns: dict[int, tuple[Turn, ...]]
    indexes: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.lines)

    def rows(self) -> Iterator[Row]:
        """The rows, each by itself."""
        return map(self.row, range(len(self)))

    def row(self, place: int) -> Row:
        row = Row(self.lines[place], None, "chat", len(self.raw[place]), self.raw[place])
        row.index = self.indexes[place]
        row.group = row.example = self.groups[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES]
        row.turns = self.turns.get(place, ())
        row.prompt, row.answer = self.prompts[place], self.answers[place]
        return row

    def part(self, begin: int, end: int) -> PlainRows:
        """The rows from `begin` to `end`."""
        return PlainRows(
            self.lines[begin:end],
            self.raw[begin:end],
            self.groups[begin * DIGEST_BYTES : end * DIGEST_BYTES],
            self.prompts[begin:end],
            self.answers[begin:end],
            {place - begin: turns for place, turns in self.turns.items() if begin <= place < end},
            self.indexes[begin:end],
        )

    def chosen(self, places: Sequence[int]) -> PlainRows:
        """The rows at these places, which ascend."""
        groups = b"".join([self.groups[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES] for place in places])
        return PlainRows(
            [self.lines[place] for place in places],
            [self.raw[place] for place in places],
            groups,
            [self.prompts[place] for place in places],
            [self.answers[place] for place in places],
            {new: self.turns[place] for new, place in enumerate(places) if place in self.turns},
            [self.indexes[place] for place in places],
        )


def plain_rows(lines: Sequence[bytes | Finding], block: bytes, first: int) -> PlainRows | None:
    """The plain ones of these lines; None: there are none. `block`: the bytes that hold the lines, and no other text.
    `first`: the number of the first line."""
    if not block.isascii() and not _is_utf8(block):
        return None
    places, canonical, ends = _written(lines, block)
    if not places:
        return None
    form = _Form(canonical, ends)
    for number in form.unsure:
        form.right[number] = _is_said(lines[places[number]])
    if _quotes(block) != form.quotes + 2 * len(places) + _quotes_elsewhere(lines, places):
        for number, place in enumerate(places):
            # every key once, and "messages"
            if lines[place].count(b'"') != canonical.count(b'"', *form.bounds(number)) + 2:  # type: ignore[union-attr]
                form.right[number] = False
    if not form.right.all():
        places = [place for place, right in zip(places, form.right.tolist(), strict=True) if right]
    begins, ends, asked, said, said_ends, answers = form.parts()
    wholes = [canonical[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return PlainRows(
        [first + place for place in places],
        [lines[place] for place in places],  # type: ignore[misc]
        b"".join([blake2b(whole, digest_size=DIGEST_BYTES).digest() for whole in wholes]),
        [hash(canonical[begin:end]) for begin, end in zip(begins, asked, strict=True)],
        # as `identity.text_hash` makes it
        [hash(canonical[begin:end].strip().lower()) for begin, end in zip(said, said_ends, strict=True)],
        {place: _turns(wholes[place]) for place, count in enumerate(answers) if count > 1},
    )


def _written(lines: Sequence[bytes | Finding], block: bytes) -> tuple[list[int], bytes, list[int]]:
    """The places of the lines that have the form, what `identity` hashes of each, one after another, and their ends."""
    read: Callable[[bytes], _RawRow | _TextRow] = _read_text if _ESCAPED.search(block) else _read_raw
    unclear = _UNCLEAR.search(block) is not None
    places, written, ends = [], bytearray(), []
    for place, line in enumerate(lines):
        if line.__class__ is not bytes or (unclear and _UNCLEAR.search(line)):
            continue
        try:
            row = read(line)
        except _NOT_READ:
            continue
        if row.messages:
            _append([row.messages, None, None], written, -1)
            places.append(place)
            ends.append(len(written))
    return places, bytes(written), ends


_NOT_READ = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class _Form:
    """Where in canonical rows the keys and texts are. All is found at once for all rows.

    A quote before a colon ends a key, unless it is escaped (then it is in a text) or comes after a colon itself (then
    it begins a text). `right`: whether a row has a question and ends with an answer. `unsure`: rows in which not every
    content is a text that begins visibly.
    """

    def __init__(self, canonical: bytes, ends: list[int]) -> None:
        data = np.frombuffer(canonical, np.uint8)
        quotes = data == _QUOTE
        self.quotes = int(np.count_nonzero(quotes))
        keys = _places(quotes, data == _COLON)
        before = data[keys - 1]
        real = (before != _BACKSLASH) & (before != _COLON)
        keys, roles = keys[real], before[real] == _ROLE_END
        begins_text, head = data[keys + 2] == _QUOTE, data[keys + 3]
        self._ends = np.array(ends)
        self._begins = np.concatenate(([0], self._ends[:-1]))
        last = np.searchsorted(keys, self._ends)
        first = np.concatenate(([0], last[:-1]))
        self._answers = _counts(roles & (head == _ASSISTANT), first)
        self.right = (
            (_counts(roles & (head == _USER), first) > 0)
            & (head[last - 1] == _ASSISTANT)
            & (last - first > 2)  # more than one message
        )
        doubtful = keys[~begins_text | _UNSURE[head]]
        self.unsure: list[int] = []
        if len(doubtful):
            unsure = np.unique(np.searchsorted(self._ends, doubtful, side="right"))
            self.unsure = unsure[self.right[unsure]].tolist()
        self._content, self._role = keys[last - 2], keys[last - 1]

    def bounds(self, number: int) -> tuple[int, int]:
        """Where a row begins and ends."""
        return int(self._begins[number]), int(self._ends[number])

    def parts(self) -> tuple[list[int], ...]:
        """Of every row that is right: its begin and end, the end of its prompt, begin and end of the last text, and
        how many answers it has."""
        prompt_ends = self._content - (len(_BETWEEN) - 2)
        text_ends = self._role - len('","role')
        parts = (self._begins, self._ends, prompt_ends, self._content + 3, text_ends, self._answers)
        if self.right.all():
            return tuple(part.tolist() for part in parts)
        return tuple(part[self.right].tolist() for part in parts)


def _places(quotes: NDArray[np.bool_], colons: NDArray[np.bool_]) -> Numbers:
    """Where a colon follows a quote. Most of the bytes are neither, so eight are looked at together first."""
    marked = np.zeros(-(-len(quotes) // 8) * 8, bool)
    np.logical_and(quotes[:-1], colons[1:], out=marked[: len(quotes) - 1])
    eights = np.flatnonzero(marked.view(np.uint64))
    bits = marked.reshape(-1, 8)[eights]
    found: Numbers
    if np.count_nonzero(bits) == len(eights):
        found = eights * 8 + bits.argmax(axis=1)
    else:
        number, place = np.nonzero(bits)
        found = eights[number] * 8 + place
    return found


def _counts(marked: NDArray[np.bool_], first: Numbers) -> Numbers:
    """How many are marked from each of `first` to the next."""
    found: Numbers = np.add.reduceat(marked.view(np.int8), first, dtype=np.int64)
    return found


def _turns(whole: bytes) -> tuple[Turn, ...]:
    """The turns of the assistant in a canonical row. What is between two messages cannot be in a text: its quotes would
    be escaped."""
    said = whole[2 : -len(b"]," + NO_TOOLS + b"]")].split(_BETWEEN)
    read, asks, turns = Reading(NO_TOOLS), False, []
    for number, part in enumerate(said):
        read.add(_BETWEEN[1:] + part if number else part)
        if part.endswith(b'"assistant"}'):
            turns.append(Turn(read.digest(), trained=True, asked=asks))
        asks = asks or part.endswith(b'"user"}')
    return tuple(turns)


def _is_said(line: bytes | Finding) -> bool:
    """Whether every content is a text that is not empty."""
    assert isinstance(line, bytes)
    try:
        return all(message.content.strip() for message in _read_text(line).messages)
    except _NOT_READ:
        return False


def _quotes(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _QUOTE))


def _quotes_elsewhere(lines: Sequence[bytes | Finding], places: list[int]) -> int:
    if len(places) == len(lines):
        return 0
    known = set(places)
    return sum(line.count(b'"') for i, line in enumerate(lines) if i not in known and isinstance(line, bytes))


def _is_utf8(block: bytes) -> bool:
    try:
        block.decode()
    except UnicodeDecodeError:
        return False
    return True
