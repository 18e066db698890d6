"""What a row is known by: digests that find duplicates, answers that another row has, too, and different answers to one
prompt."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from services.validate.domain.content import Row, Turn, input_of
from shared.conversation import TEMPLATE_FIELDS, text_of
from shared.ids import canonical

DIGEST_BYTES = 16  # bytes; among fewer than 2**64 rows, two different ones hardly ever share a digest
QUESTIONS = {"user", "tool", "function"}
_SIDES = ("preferred_completion", "non_preferred_completion")


def identify(row: Row) -> None:
    """Set what is found of a row. It must have passed the rules of its format."""
    if row.format == "completion":
        _identify_completion(row)
        return
    asked = input_of(row)
    messages: list[dict[str, Any]] = asked["messages"]
    texts = [said(trained_form(message)) for message in messages]
    tools, functions = canonical(asked.get("tools")), canonical(asked.get("functions"))
    end = b"" if tools == functions == b"null" else tools + b"," + functions
    row.turns = tuple(_turns(row, texts, end))
    if row.format == "chat":
        row.group = row.example = digest(b"".join(texts) + end)
        if unweighted := ",".join(str(i) for i, message in enumerate(messages) if message.get("weight") == 0):
            row.example = digest(row.group + unweighted.encode())
        last = max(i for i, one in enumerate(messages) if one["role"] == "assistant" and one.get("weight") != 0)
        if any(one["role"] in QUESTIONS for one in messages[:last]):
            row.prompt = _prompt_hash(texts[:last], end)
            row.answer = _answer_hash(messages[last])
    else:
        answers = [canonical(trained_form(row.value[side][0])) for side in _SIDES]
        pair = b"[" + b",".join(answers) + b"]"
        row.group = row.example = digest(b"".join(texts) + tools + pair)
        # the prompt with both answers; the answer is which of them is preferred
        row.prompt = hash((_prompt_hash(texts, end), *sorted(answers)))
        row.answer = hash(answers[0])


def _identify_completion(row: Row) -> None:
    prompt, completion = row.value["prompt"], row.value["completion"]
    row.group = row.example = digest(canonical([prompt, completion]))
    # all continuations of nothing have the same prompt, but nothing in common
    link = hashlib.blake2b(canonical(prompt if prompt.strip() else completion), digest_size=8).digest()
    row.turns = (Turn(_number(link), trained=True),)
    if prompt.strip():
        row.prompt, row.answer = hash(prompt), text_hash(completion)


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:DIGEST_BYTES]  # most processors have instructions for it


# --- links between rows ---------------------------------------------------------------------------------------------


def _turns(row: Row, texts: Sequence[bytes], end: bytes) -> Iterator[Turn]:
    """The turns of the assistant in a chat or preference row, each with what was said before it. The prompt of a
    preference row counts as a trained turn, so that all answers to it stay together. `texts`: what is `said` in each
    message, `end`: what comes behind them."""
    messages, chat = input_of(row)["messages"], row.format == "chat"
    read = Reading(end)
    asks = False
    for message, text in zip(messages, texts, strict=True):
        read.add(_without_thoughts(message, text))
        if message["role"] == "assistant":
            yield Turn(read.digest(), trained=chat and message.get("weight") != 0, asked=asks)
        asks = asks or message["role"] in QUESTIONS
    if not chat:
        yield Turn(read.digest(), trained=True)
        for side in _SIDES:
            answer = row.value[side][0]
            yield Turn(read.digest(_without_thoughts(answer, said(trained_form(answer)))), trained=True)


class Reading:
    """Hashes a conversation message by message. `end`: what comes behind the last one, its tools and functions."""

    def __init__(self, end: bytes) -> None:
        self._hash = hashlib.sha256()
        self._end = end

    def add(self, text: bytes) -> None:
        self._hash.update(text)

    def digest(self, more: bytes = b"") -> int:
        """64 bits of what was added, with one more message behind it. They are the first ones of the `group` of a row
        that ends there, so that most rows need one digest for both."""
        read = self._hash.copy()
        read.update(more + self._end)
        return _number(read.digest()[:8])


def said(message: dict[str, Any]) -> bytes:
    """A message in its trained form as it is hashed. No row holds a NUL, and no role begins with a brace, so no two
    conversations are written alike."""
    if message.keys() == {"role", "content"}:
        return f"{message['role']}\0{message['content']}\0".encode()
    return canonical(message) + b"\0"


def _without_thoughts(message: dict[str, Any], text: bytes) -> bytes:
    """What is said in a message as later rows repeat it: logs of a thinking model leave earlier thoughts out."""
    if message.get("reasoning_content") is None:
        return text
    return said({key: part for key, part in trained_form(message).items() if key != "reasoning_content"})


def _number(link: bytes) -> int:
    return int.from_bytes(link, "little")


def trained_form(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it is trained on: without weights, nulls and unknown keys; text parts are joined."""
    said = {key: message[key] for key in TEMPLATE_FIELDS if message.get(key) is not None}
    if "content" in said:
        said["content"] = text_of(said["content"])
    return said


# --- one answer to one prompt ---------------------------------------------------------------------------------------


def _prompt_hash(texts: Iterable[bytes], end: bytes) -> int:
    """A hash, of this process, of messages and what comes behind them."""
    return hash((b"".join(texts) + end).decode())


def text_hash(text: str) -> int:
    """A hash, of this process, of an answer's text. Only ASCII is made small: the rest would take ten times as long."""
    return hash(text.strip().encode().lower())


def _answer_hash(message: dict[str, Any]) -> int:
    answer = {key: part for key, part in trained_form(message).items() if key not in {"reasoning_content", "name"}}
    if answer.keys() == {"role", "content"}:
        return text_hash(answer["content"])
    return hash(canonical(answer))
