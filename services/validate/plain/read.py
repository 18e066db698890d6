"""Recognises the plain rows of a block.

What makes it quick: msgspec reads a row into objects of its own, and everything of a row is done at once, while its
bytes are in the processor's cache. Nothing is written as JSON again: see `identity.said`.

msgspec takes a key that an object has twice. So the quotes of all rows are counted, and where there are more than keys,
roles and texts need, those of each row: a row with a second key has too many. A quote may also be an escape.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
import numpy as np

from services.validate.domain.content import Turn
from services.validate.domain.identity import DIGEST_BYTES, Reading, text_hash
from services.validate.plain.rows import PlainRows
from services.validate.reader import Block


class _Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Literal["system", "developer", "user", "assistant"]
    content: str


class _Row(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    messages: Annotated[list[_Message], msgspec.Meta(min_length=2)]


_read = msgspec.json.Decoder(_Row).decode
_NOT_READ = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

_QUOTES_OF_ROW, _QUOTES_OF_MESSAGE = 2, 8
"""Around the keys, and in a message around the role and the text."""
_QUOTE, _ESCAPED_QUOTE, _ESCAPED_NUL = b'"', b"\\u0022", b"\\u0000"
_TILE = 2**16  # bytes that are compared at once, which stay in the cache


def plain_rows(block: Block) -> PlainRows | None:
    """The plain ones of the lines of a block; None: there are none."""
    if not block.read_whole:
        return None
    data = block.data
    places, prompts, answers = list[int](), list[int](), list[int]()
    digests, quotes = list[bytes](), list[int]()
    turns: dict[int, tuple[Turn, ...]] = {}
    begin = 0
    for place, end in enumerate(block.ends):
        try:
            messages = _read(data[begin:end]).messages
        except _NOT_READ:
            begin = end + 1
            continue
        begin = end + 1
        said = _said(messages)
        if said is None:
            continue
        prompt, answer, count = said
        whole = f"{prompt}assistant\0{answer}\0".encode()
        if count > 1:
            turns[len(places)] = _turns(messages)
        places.append(place)
        digests.append(sha256(whole).digest())
        prompts.append(hash(prompt))
        answers.append(text_hash(answer))
        quoted = whole.count(_QUOTE) if _QUOTE in whole else 0  # to find none is ten times as fast as to count
        quotes.append(_QUOTES_OF_ROW + _QUOTES_OF_MESSAGE * len(messages) + quoted)
    if not places:
        return None
    groups = np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)[:, :DIGEST_BYTES].tobytes()
    rows = PlainRows(block, places, groups, prompts, answers, turns)
    if _ESCAPED_NUL not in data and _quotes(data) == sum(quotes):
        return rows
    right = [number for number, wanted in enumerate(quotes) if _is_right(rows.raw(number), wanted)]
    return rows.chosen(right) if right else None


def _said(messages: list[_Message]) -> tuple[str, str, int] | None:
    """The prompt as it is hashed, the last answer, and how many answers there are. None: there is no question, the last
    message is no answer, or a text is empty."""
    prompt, role, content, asked, answers = "", "", "", False, 0
    for message in messages:
        if role:
            prompt += f"{role}\0{content}\0"
        role, content = message.role, message.content
        if role == "user":
            asked = True
        elif role == "assistant":
            answers += 1
        if not content.strip():
            return None
    return (prompt, content, answers) if asked and role == "assistant" else None


def _is_right(raw: bytes, quotes: int) -> bool:
    """Whether a row has every key once, and no NUL, which no row may hold."""
    return raw.count(_QUOTE) + raw.count(_ESCAPED_QUOTE) == quotes and _ESCAPED_NUL not in raw


def _turns(messages: list[_Message]) -> tuple[Turn, ...]:
    """The turns of the assistant."""
    read, asked, turns = Reading(b""), False, []
    for message in messages:
        read.add(f"{message.role}\0{message.content}\0".encode())
        if message.role == "assistant":
            turns.append(Turn(read.digest(), trained=True, asked=asked))
        asked = asked or message.role == "user"
    return tuple(turns)


def _quotes(data: bytes) -> int:
    read = np.frombuffer(data, np.uint8)
    tiles = (read[begin : begin + _TILE] for begin in range(0, len(read), _TILE))
    return sum(int(np.count_nonzero(tile == ord(_QUOTE))) for tile in tiles)
