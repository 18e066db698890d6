"""The part of a row that is trained on: as messages for the chat template, and as a digest that finds duplicates."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from services.validate.domain.formats import Format
from shared.conversation import TEMPLATE_FIELDS, sent_messages, text_of
from shared.ids import canonical

DIGEST_BYTES = 16  # bytes; among fewer than 2**64 rows, two different ones hardly ever share a digest


@dataclass(slots=True)
class Row:
    """A row that is a JSON object, on its way through the checks.

    Rows with the same `example` are exact duplicates. Rows with the same `group` hold the same conversation, perhaps
    with other `weight`s: all are used, but in the same split. `sequences` has the number of tokens of each sequence
    that is trained on: one, or two for a preference pair; none where no base is known.
    """

    line: int
    value: dict[str, Any]
    format: Format
    size: int = 0
    group: bytes = b""
    example: bytes = b""
    sequences: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        return max(self.sequences, default=0)


def identify(row: Row) -> None:
    """Set `group` and `example`. The row must have passed the rules of its format."""
    value, unweighted = row.value, ""
    if row.format == "chat":
        said = [_trained_form(message) for message in value["messages"]]
        content: list[Any] = [said, value.get("tools"), value.get("functions")]
        unweighted = ",".join(str(i) for i, message in enumerate(value["messages"]) if message.get("weight") == 0)
    elif row.format == "completion":
        content = [value["prompt"], value["completion"]]
    else:
        asked = value["input"]
        answers = [_trained_form(value[side][0]) for side in ("preferred_completion", "non_preferred_completion")]
        content = [[_trained_form(message) for message in asked["messages"]], asked.get("tools"), answers]
    row.group = _digest(canonical(content))
    row.example = _digest(row.group + unweighted.encode()) if unweighted else row.group


def _trained_form(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it is trained on: without weights, nulls and unknown keys; text parts are joined."""
    said = {key: message[key] for key in TEMPLATE_FIELDS if message.get(key) is not None}
    if "content" in said:
        said["content"] = text_of(said["content"])
    return said


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


# --- for the server ------------------------------------------------------------------------------------------


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
