"""Lists of messages as other tools write them (`from`/`value`, `gpt`, `human`, …), and transcripts, as messages of a
chat."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.names import ROLES
from services.ingest.domain.mining.records import key_of, text_of
from services.ingest.domain.mining.transcripts import said
from shared.events.source import Role

Message = dict[str, Any]
Answers = Literal["join", "first", "last"]

ROLE_KEYS = (
    "role", "from", "author", "author_role", "author_type", "sender_role", "sender_type", "sender", "speaker",
    "direction",
)  # fmt: skip
TEXT_KEYS = ("content", "value", "text", "body", "message", "plain_body", "parts")
PART_TEXT_KEYS = ("text", "value")
NATIVE_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
WORD_CHARS = 64
"""Of who speaks. What is longer is no role."""
MOST_MESSAGES = 10_000
BETWEEN = "\n\n"
"""Between two texts that become one turn."""

_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESPONSE = re.compile(r"^\s*<tool_response>\s*(.*?)\s*</tool_response>\s*$", re.DOTALL)


class Cut(NamedTuple):
    """How many turns of a conversation nobody can learn from, so that they were cut off. `systems`: system prompts
    that differ from the first one, which alone is kept of rows that are a part of a conversation."""

    unasked: int = 0
    """Before the first question."""
    unanswered: int = 0
    """After the last answer."""
    systems: int = 0


class Speakers:
    """Who speaks: the words of the file, those of its settings first."""

    def __init__(self, own: Mapping[str, Role] | None = None) -> None:
        self._own = {key_of(word): role for word, role in (own or {}).items()}

    def role(self, word: Any) -> Role:
        """The role of a speaker.

        Raises:
            LeftOut: nobody knows it.
        """
        key = _word(word)
        found = self._own.get(key) or ROLES.get(key)
        if found is None:
            shown = text_of(word)[:40]
            raise LeftOut(
                "unknown_role", f"{shown!r}; say who that is with source.roles: {{{json.dumps(shown)}: user}}"
            )
        return found

    def knows(self, word: Any) -> bool:
        key = _word(word)
        return key in self._own or key in ROLES


def _word(value: Any) -> str:
    return key_of(text_of(value)[:WORD_CHARS])


def is_messages(value: Any) -> bool:
    """Whether a value is a list of messages in some spelling, or the JSON of one."""
    items = as_list(value)
    return bool(items) and all(
        isinstance(item, dict) and _first(item, ROLE_KEYS) and (_first(item, TEXT_KEYS) or "tool_calls" in item)
        for item in items[:20]
    )


def as_list(value: Any) -> list[Any]:
    """A list, also if it is written in a cell, as JSON or as Python writes it; empty if it is none."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        text = value.strip()
        try:
            value = ast.literal_eval(text) if text.startswith("[{'") else json.loads(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return []
    return value if isinstance(value, list) else []


def messages_of(value: Any, speakers: Speakers, answers: Answers) -> tuple[list[Message], Cut]:
    """The messages of a chat that ends with an answer, and what was cut off.

    Raises:
        LeftOut: they cannot be trained on.
    """
    return chat([message for item in raw_messages(value, speakers) for message in item], answers)


def raw_messages(value: Any, speakers: Speakers) -> list[list[Message]]:
    """The messages of each item of a list, in the spelling of the chat format."""
    items = as_list(value) or [{"role": turn.who, "value": turn.text} for turn in said(value, speakers)]
    if not items or not all(isinstance(item, dict) for item in items):
        raise LeftOut("not_messages")
    if len(items) > MOST_MESSAGES:
        raise LeftOut("too_large", f"{len(items):,} messages")
    calls = _Calls()
    return [list(_read(item, speakers, calls)) for item in items]


def chat(messages: list[Message], answers: Answers) -> tuple[list[Message], Cut]:
    """A conversation that a model can learn from, and what was cut off: turns of one speaker are one turn, nothing
    comes before the first question or after the last answer.

    Raises:
        LeftOut: nothing is asked, or nothing is answered.
    """
    joined: list[Message] = []
    for message in messages:
        if joined and _joins(joined[-1], message):
            joined[-1] = _join(joined[-1], message, answers)
        else:
            joined.append(message)
    first = next((i for i, each in enumerate(joined) if each["role"] not in ("system", "developer")), len(joined))
    begin = first
    while begin < len(joined) and joined[begin]["role"] not in ("user",):
        begin += 1
    end = len(joined)
    while end > begin and joined[end - 1]["role"] != "assistant":
        end -= 1
    if begin == len(joined):
        raise LeftOut("no_question")
    if end == begin:
        raise LeftOut("no_answer")
    return joined[:first] + joined[begin:end], Cut(begin - first, len(joined) - end)


def _joins(before: Message, message: Message) -> bool:
    role = message["role"]
    plain = before.keys() | message.keys() <= {"role", "content"}
    return role == before["role"] and role in ("user", "assistant", "system") and plain and _is_text(before, message)


def _is_text(*messages: Message) -> bool:
    return all(isinstance(message.get("content"), str) for message in messages)


def _join(before: Message, message: Message, answers: Answers) -> Message:
    if message["role"] == "assistant" and answers != "join":
        return before if answers == "first" else message
    if before["content"] == message["content"]:
        return before  # an export that repeats the question beside each answer
    return {**before, "content": before["content"] + BETWEEN + message["content"]}


def _first(item: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((key for key in keys if key in item), None)


class _Calls:
    """The calls of tools that wait for a result. Other tools' files have no ids, so calls are numbered."""

    def __init__(self) -> None:
        self.made = 0
        self.waiting: list[str] = []

    def make(self, name: str, arguments: Any) -> dict[str, Any]:
        self.made += 1
        call_id = f"call_{self.made}"
        self.waiting.append(call_id)
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}

    def answered(self) -> str:
        if not self.waiting:
            raise LeftOut("tool_calls", "a result comes without a call before it")
        return self.waiting.pop(0)


def _read(item: Message, speakers: Speakers, calls: _Calls) -> list[Message]:
    if item.get("role") in NATIVE_ROLES and "content" in item | {"content": item.get("content")} and _native(item):
        return [item] if _says(item) else []
    role_key, text_key = _first(item, ROLE_KEYS), _first(item, TEXT_KEYS)
    if role_key is None:
        raise LeftOut("unknown_role", "a message says nowhere who speaks")
    word = item[role_key]
    role = speakers.role(word)
    text = content_of(item if text_key == "parts" else item[text_key]) if text_key else ""
    weight = {"weight": item["weight"]} if role == "assistant" and item.get("weight") in (0, 1) else {}
    if _word(word) == "functioncall":
        return [{"role": "assistant", "tool_calls": [_call(text, calls)], **weight}]
    if role == "assistant" and (found := _CALL.findall(text)):
        said = _CALL.sub("", text).strip()
        made = [_call(each, calls) for each in found]
        return [{"role": "assistant", **({"content": said} if said else {}), "tool_calls": made, **weight}]
    if not text:
        return []
    if role == "tool":
        inner = _RESPONSE.match(text)
        return [{"role": "tool", "tool_call_id": calls.answered(), "content": inner[1] if inner else text}]
    return [{"role": role, "content": text, **weight}]


def _native(item: Message) -> bool:
    """Whether a message is in the chat format already, so that nothing of it may be changed."""
    return (
        isinstance(item.get("content"), str | list | None)
        and "value" not in item
        and "parts" not in item
        and "from" not in item
        and (item["role"] != "tool" or "tool_call_id" in item)
    )


def _says(item: Message) -> bool:
    content = item.get("content")
    if isinstance(content, str) and content.strip():
        return True
    return (
        bool(content and isinstance(content, list))
        or item["role"] == "tool"
        or any(item.get(key) for key in ("tool_calls", "function_call", "refusal", "audio"))
    )


def content_of(value: Any) -> str:
    """The text of a message: a text, an object that has one, or a list of parts. Other objects stay as they are, in
    JSON: what a tool answers, and how it was called.

    Raises:
        LeftOut: a part is no text.
    """
    if isinstance(value, dict):
        if isinstance(value.get("parts"), list):
            return _of_parts(value["parts"])
        key = _first(value, PART_TEXT_KEYS)
        return text_of(value[key] if key else value)
    if isinstance(value, list) and any(not isinstance(each, dict) or _is_part(each) for each in value):
        return _of_parts(value)
    return text_of(value)


def _is_part(item: Message) -> bool:
    return "type" in item or _first(item, PART_TEXT_KEYS) is not None


def _of_parts(parts: list[Any]) -> str:
    return BETWEEN.join(filter(None, map(_part, parts)))


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return text_of(part)
    key = _first(part, PART_TEXT_KEYS)
    if key is None:
        raise LeftOut("parts", repr(text_of(part.get("type") or next(iter(part), ""))[:40]))
    return text_of(part[key])


def _call(text: str, calls: _Calls) -> dict[str, Any]:
    try:
        found = json.loads(text)
        name, arguments = found["name"], found.get("arguments", found.get("parameters", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LeftOut("tool_calls", "a call is no JSON object with name and arguments") from None
    if not isinstance(name, str):
        raise LeftOut("tool_calls", "a call has no name")
    return calls.make(name, arguments)
