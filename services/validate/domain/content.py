"""A row on its way through the checks, and the part of it that is sent to a server."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from services.validate.domain.formats import Format
from shared.conversation import sent_messages


class Turn(NamedTuple):
    """A turn of the assistant after everything that was said before it. `digest`: 64 bits of both; two turns that share
    it by accident only make one group of two. `trained`: the row teaches this turn. `asked`: a question comes before
    it."""

    digest: int
    trained: bool
    asked: bool = True


class Row:
    """A row that is a JSON object, on its way through the checks.

    Rows with the same `example` are exact duplicates. Rows with the same `group` hold the same conversation, perhaps
    with other `weight`s. `turns` link rows that must be in the same split; where they are empty, `group` does.
    `prompt` and `answer` are hashes of this process: rows with one prompt should have one answer; None: the row has no
    prompt that could be compared. `sequences` has the number of tokens of each sequence that is trained on: one, or two
    for a preference pair; none where no base is known.

    A `plain` row is of the most frequent form: a chat of messages that have a role and a text and nothing else, right
    by all rules of its format. Its digests are known from the beginning, and its `value` is only made if asked for.
    """

    # defaults of the class: most rows need only a few of their own
    index = 0
    """Its place among the rows of the file, blank lines left out, from 0."""
    group = b""
    example = b""
    turns: tuple[Turn, ...] = ()
    prompt: int | None = None
    answer = 0
    sequences: tuple[int, ...] = ()
    repaired = False
    """Its `value` is not what its line holds: see `domain/repair.py`."""

    def __init__(
        self, line: int, value: dict[str, Any] | None, format: Format, size: int = 0, raw: bytes = b""
    ) -> None:
        """`value`: None for a plain row, whose line is `raw`. `size`: bytes of the line."""
        self.line = line
        self.format: Format = format
        self.size = size
        self._value = value
        self.raw = raw
        self.plain = value is None

    @property
    def value(self) -> dict[str, Any]:
        if self._value is None:
            self._value = json.loads(self.raw)
        return self._value

    @property
    def longest(self) -> int:
        return max(self.sequences, default=0)


def conversations(row: Row) -> list[tuple[list[dict[str, Any]], list[int]]]:
    """The conversations of a chat or preference row as they are sent to a server, each with the indexes of the messages
    that are trained on."""
    if row.format == "chat":
        return [(sent_messages(row.value["messages"]), _trained_indexes(row))]
    asked = row.value["input"]["messages"]
    answers = [row.value[side] for side in ("preferred_completion", "non_preferred_completion")]
    return [(sent_messages([*asked, *answer]), [len(asked)]) for answer in answers]


def _trained_indexes(row: Row) -> list[int]:
    """Indexes of the messages of a chat row that are trained on; a weight of null counts as 1."""
    return [
        index
        for index, message in enumerate(row.value["messages"])
        if message["role"] == "assistant" and message.get("weight") != 0
    ]


def input_of(row: Row) -> dict[str, Any]:
    """The object that holds the messages and tools: a chat row itself, or the input of a preference row."""
    asked: dict[str, Any] = row.value["input"] if row.format == "preference" else row.value
    return asked
