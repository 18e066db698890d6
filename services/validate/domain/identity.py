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
    said = [canonical(trained_form(message)) for message in messages]
    tools, functions = canonical(asked.get("tools")), canonical(asked.get("functions"))
    beside = tools + b"," + functions
    row.turns = tuple(_turns(row, said, beside))
    if row.format == "chat":
        row.group = row.example = digest(b"[[" + b",".join(said) + b"]," + beside + b"]")
        if unweighted := ",".join(str(i) for i, message in enumerate(messages) if message.get("weight") == 0):
            row.example = digest(row.group + unweighted.encode())
        last = max(i for i, one in enumerate(messages) if one["role"] == "assistant" and one.get("weight") != 0)
        if any(one["role"] in QUESTIONS for one in messages[:last]):
            row.prompt = prompt_hash(said[:last], beside)
            row.answer = _answer_hash(messages[last])
    else:
        answers = [canonical(trained_form(row.value[side][0])) for side in _SIDES]
        pair = b"[" + b",".join(answers) + b"]"
        row.group = row.example = digest(b"[[" + b",".join(said) + b"]," + tools + b"," + pair + b"]")
        # the prompt with both answers; the answer is which of them is preferred
        row.prompt = hash((prompt_hash(said, beside), *sorted(answers)))
        row.answer = hash(answers[0])


def _identify_completion(row: Row) -> None:
    prompt, completion = row.value["prompt"], row.value["completion"]
    row.group = row.example = digest(canonical([prompt, completion]))
    # all continuations of nothing have the same prompt, but nothing in common
    link = hashlib.blake2b(canonical(prompt if prompt.strip() else completion), digest_size=8).digest()
    row.turns = (Turn(_number(link), trained=True),)
    if prompt.strip():
        row.prompt, row.answer = hash(prompt), text_hash(canonical(completion)[1:-1])


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


# --- links between rows ---------------------------------------------------------------------------------------------


def _turns(row: Row, said: Sequence[bytes], beside: bytes) -> Iterator[Turn]:
    """The turns of the assistant in a chat or preference row, each with what was said before it. The prompt of a
    preference row counts as a trained turn, so that all answers to it stay together. `said`: its canonical messages."""
    messages, chat = input_of(row)["messages"], row.format == "chat"
    read = Reading(beside)
    asks = False
    for message, text in zip(messages, said, strict=True):
        read.add(_without_thoughts(message, text))
        if message["role"] == "assistant":
            yield Turn(read.digest(), trained=chat and message.get("weight") != 0, asked=asks)
        asks = asks or message["role"] in QUESTIONS
    if not chat:
        yield Turn(read.digest(), trained=True)
        for side in _SIDES:
            answer = row.value[side][0]
            text = _without_thoughts(answer, canonical(trained_form(answer)))
            yield Turn(read.digest(text), trained=True)


class Reading:
    """Hashes a conversation message by message. `beside`: its tools and functions, canonical."""

    def __init__(self, beside: bytes) -> None:
        self._hash = hashlib.blake2b(b"[[", digest_size=DIGEST_BYTES)
        self._end = b"]," + beside + b"]"
        self._comma = b""

    def add(self, text: bytes) -> None:
        self._hash.update(self._comma + text)
        self._comma = b","

    def digest(self, *more: bytes) -> int:
        """64 bits of what was added, with `more` messages behind it. They are the first ones of the `group` of a row
        that ends there, so that most rows need one digest for both."""
        read = self._hash.copy()
        for text in more:
            read.update(self._comma + text)
        read.update(self._end)
        return _number(read.digest()[:8])


def _without_thoughts(message: dict[str, Any], text: bytes) -> bytes:
    """The canonical message as later rows repeat it: logs of a thinking model leave earlier thoughts out."""
    if message.get("reasoning_content") is None:
        return text
    return canonical({key: part for key, part in trained_form(message).items() if key != "reasoning_content"})


def _number(link: bytes) -> int:
    return int.from_bytes(link, "little")


def trained_form(message: dict[str, Any]) -> dict[str, Any]:
    """The message as it is trained on: without weights, nulls and unknown keys; text parts are joined."""
    said = {key: message[key] for key in TEMPLATE_FIELDS if message.get(key) is not None}
    if "content" in said:
        said["content"] = text_of(said["content"])
    return said


# --- one answer to one prompt ---------------------------------------------------------------------------------------

NO_TOOLS = b"null,null"


def prompt_hash(said: Iterable[bytes], beside: bytes) -> int:
    """A hash, of this process, of canonical messages and what is beside them."""
    return hash(b"[[" + b",".join(said) + (b"" if beside == NO_TOOLS else b"]," + beside))


def text_hash(literal: bytes) -> int:
    """A hash, of this process, of an answer's text in JSON, without its quotes."""
    return hash(literal.strip().lower())


def _answer_hash(message: dict[str, Any]) -> int:
    said = {key: part for key, part in trained_form(message).items() if key not in {"reasoning_content", "name"}}
    if said.keys() == {"role", "content"}:
        return text_hash(canonical(said["content"])[1:-1])
    return hash(canonical(said))
