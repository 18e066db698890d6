"""The part of a row that is trained on: as messages for the chat template, and as digests that find duplicates and
answers that another row has, too."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from services.validate.domain.formats import Format
from services.validate.domain.links import Turn
from shared.conversation import TEMPLATE_FIELDS, sent_messages, text_of
from shared.ids import canonical

DIGEST_BYTES = 16  # bytes; among fewer than 2**64 rows, two different ones hardly ever share a digest


@dataclass(slots=True)
class Row:
    """A row that is a JSON object, on its way through the checks.

    Rows with the same `example` are exact duplicates. Rows with the same `group` hold the same conversation, perhaps
    with other `weight`s. `turns` link rows that must be in the same split. `sequences` has the number of tokens of each
    sequence that is trained on: one, or two for a preference pair; none where no base is known.
    """

    line: int
    value: dict[str, Any]
    format: Format
    size: int = 0
    group: bytes = b""
    example: bytes = b""
    turns: tuple[Turn, ...] = ()
    sequences: tuple[int, ...] = ()

    @property
    def longest(self) -> int:
        return max(self.sequences, default=0)


def identify(row: Row) -> None:
    """Set `group`, `example` and `turns`. The row must have passed the rules of its format."""
    if row.format == "completion":
        prompt, completion = row.value["prompt"], row.value["completion"]
        row.group = row.example = _digest(canonical([prompt, completion]))
        # all continuations of nothing have the same prompt, but nothing in common
        row.turns = (Turn(_link(canonical(prompt if prompt.strip() else completion)), trained=True),)
        return
    asked = input_of(row)
    said = [canonical(_trained_form(message)) for message in asked["messages"]]
    beside = [canonical(asked.get("tools"))]
    if row.format == "chat":
        beside.append(canonical(asked.get("functions")))
    else:
        answers = [row.value[side][0] for side in ("preferred_completion", "non_preferred_completion")]
        beside.append(_list(canonical(_trained_form(answer)) for answer in answers))
    row.group = row.example = _digest(_list([_list(said), *beside]))
    row.turns = tuple(_turns(row, said))
    unweighted = ",".join(str(i) for i, message in enumerate(asked["messages"]) if message.get("weight") == 0)
    if row.format == "chat" and unweighted:
        row.example = _digest(row.group + unweighted.encode())


def _list(parts: Iterable[bytes]) -> bytes:
    """The canonical form of a list, from those of its parts."""
    return b"[" + b",".join(parts) + b"]"


# --- links between rows ---------------------------------------------------------------------------------------------

_LINK_BYTES = 8
_QUESTIONS = {"user", "tool", "function"}


def _turns(row: Row, said: Sequence[bytes]) -> Iterator[Turn]:
    """The turns of the assistant in a chat or preference row, each with what was said before it. The prompt of a
    preference row counts as a trained turn, so that all answers to it stay together. `said`: its canonical messages."""
    asked, chat = input_of(row), row.format == "chat"
    read = hashlib.blake2b(canonical([asked.get("tools"), asked.get("functions")]), digest_size=_LINK_BYTES)
    asks = False
    for message, text in zip(asked["messages"], said, strict=True):
        read.update(_without_thoughts(message, text))
        if message["role"] == "assistant":
            yield Turn(_number(read.digest()), trained=chat and message.get("weight") != 0, asked=asks)
        asks = asks or message["role"] in _QUESTIONS
    if not chat:
        yield Turn(_number(read.digest()), trained=True)
        for side in ("preferred_completion", "non_preferred_completion"):
            answer, answered = row.value[side][0], read.copy()
            answered.update(_without_thoughts(answer, canonical(_trained_form(answer))))
            yield Turn(_number(answered.digest()), trained=True)


def _without_thoughts(message: dict[str, Any], text: bytes) -> bytes:
    """The canonical message as later rows repeat it: logs of a thinking model leave earlier thoughts out."""
    if message.get("reasoning_content") is not None:
        text = canonical({key: part for key, part in _trained_form(message).items() if key != "reasoning_content"})
    return text + b"\n"


def _link(data: bytes) -> int:
    return _number(hashlib.blake2b(data, digest_size=_LINK_BYTES).digest())


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")


# --- digests --------------------------------------------------------------------------------------------------------


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
