"""What of a row is trained on: as text for the base's chat template, and as a digest that tells equal examples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

from services.validate.domain.formats import Format
from shared.conversation import SAID, template_messages, text_of
from shared.ids import canonical

DIGEST_BYTES = 16  # 2**64 rows until two different ones are likely to share a digest


@dataclass(slots=True)
class Row:
    """A row that is a JSON object, on its way through the checks.

    `example` tells exact duplicates. `group` is the same for rows that hold the same conversation with other `weight`s:
    both are wanted in training, but never in two splits. `sequences` holds the tokens of what the row is
    trained as: one sequence, or two for a preference pair; it stays empty where no base is known.
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
        said = [_said(message) for message in value["messages"]]
        content: list[Any] = [said, value.get("tools"), value.get("functions")]
        unweighted = ",".join(str(i) for i, message in enumerate(value["messages"]) if message.get("weight") == 0)
    elif row.format == "completion":
        content = [value["prompt"], value["completion"]]
    else:
        asked = value["input"]
        answers = [_said(value[side][0]) for side in ("preferred_completion", "non_preferred_completion")]
        content = [[_said(message) for message in asked["messages"]], asked.get("tools"), answers]
    row.group = _digest(canonical(content))
    row.example = _digest(row.group + unweighted.encode()) if unweighted else row.group


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """A message without what is not trained on: weights, nulls, unknown keys, and how its text is cut into parts."""
    said = {key: message[key] for key in SAID if message.get(key) is not None}
    if "content" in said:
        said["content"] = text_of(said["content"])
    return said


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


# --- for the chat template ------------------------------------------------------------------------------------------


def conversations(row: Row) -> list[list[dict[str, Any]]]:
    """The sequences of a chat or preference row in the form that chat templates expect, each up to the last message
    that is trained on."""
    if row.format == "chat":
        return [template_messages(row.value["messages"][: _trained(row)[-1] + 1])]
    asked = template_messages(row.value["input"]["messages"])
    return [asked + template_messages(row.value[side]) for side in ("preferred_completion", "non_preferred_completion")]


def prompt_of(row: Row) -> list[dict[str, Any]]:
    """The messages of a chat or preference row before the first that is trained on."""
    if row.format == "preference":
        return template_messages(row.value["input"]["messages"])
    return template_messages(row.value["messages"][: _trained(row)[0]])


def _trained(row: Row) -> list[int]:
    """Indexes of the messages of a chat row that are trained on; a weight of null counts as 1."""
    return [
        index
        for index, message in enumerate(row.value["messages"])
        if message["role"] == "assistant" and message.get("weight") != 0
    ]


def asked_of(row: Row) -> dict[str, Any]:
    """Where a chat or preference row says which tools there are."""
    asked: dict[str, Any] = row.value["input"] if row.format == "preference" else row.value
    return asked
