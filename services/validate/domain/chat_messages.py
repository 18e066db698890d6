"""Rules for a list of chat messages, as OpenAI's fine-tuning API has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.validate.domain.findings import Finding, json_type, missing, short, unknown_keys, wrong_type
from services.validate.domain.tools import function_call, functions, tool_calls, tools

ROLES = ("system", "developer", "user", "assistant", "tool", "function")
ROLES_TEXT = "system, user, assistant, tool"  # developer and function are accepted, but not recommended

_COMMON = frozenset({"role", "content", "name"})
# What the API's own answers contain is allowed, so that logged answers can be trained on.
_ASSISTANT = _COMMON | {
    "weight",
    "tool_calls",
    "function_call",
    "refusal",
    "reasoning_content",
    "audio",
    "annotations",
}
KEYS: dict[str, frozenset[str]] = {
    "system": _COMMON,
    "developer": _COMMON,
    "user": _COMMON,
    "assistant": _ASSISTANT,
    "tool": _COMMON | {"tool_call_id"},
    "function": _COMMON,
}
_ANY_ROLE = frozenset().union(*KEYS.values())
_PART = frozenset({"type", "text"})
_CONTENT = "a string or a list of text parts"


def conversation(messages: Any, at: str) -> Iterator[Finding]:
    """Check a list of messages by the rules that do not depend on its last message."""
    if not isinstance(messages, list):
        yield wrong_type(at, messages, "a list of messages")
        return
    if not messages:
        yield Finding("no_messages", at, "is an empty list", "add a user and an assistant message")
    calls: set[str] = set()
    for index, message in enumerate(messages):
        yield from one_message(message, f"{at}[{index}]", calls)
    if calls:
        yield from _unanswered(messages, at)


def one_message(message: Any, at: str, calls: set[str]) -> Iterator[Finding]:
    """Check one message. `calls` holds the ids of the tool calls made so far; those of this message are added to it."""
    if not isinstance(message, dict):
        yield wrong_type(at, message, 'an object {"role", "content"}')
        return
    role = message.get("role")
    if role is None:
        yield missing(at, "role", f"add one of {ROLES_TEXT}")
        return
    known = KEYS.get(role) if isinstance(role, str) else None
    if known is None:
        shown = f"'{short(role)}'" if isinstance(role, str) else json_type(role)
        yield Finding("invalid_role", f"{at}.role", f"is {shown}", f"use one of {ROLES_TEXT}")
        return
    if not message.keys() <= known:
        yield from _misplaced(message, known, at)
    if "name" in message and not isinstance(message["name"], str | None):
        yield wrong_type(f"{at}.name", message["name"], "a string")
    if role == "assistant":
        yield from _assistant(message, at, calls)
    elif role == "tool":
        yield from _tool(message, at, calls)
    elif role == "function":
        if not isinstance(message.get("name"), str):
            yield missing(at, "name", "name the function whose result this is")
        yield from content(message, at, required=False, may_be_empty=True)
    else:
        yield from content(message, at, required=True, may_be_empty=False)


def _assistant(message: dict[str, Any], at: str, calls: set[str]) -> Iterator[Finding]:
    weight = message.get("weight", 1)
    # true == 1 in Python, but not in JSON
    if weight is not None and (isinstance(weight, bool) or weight not in (0, 1)):
        yield Finding("invalid_weight", f"{at}.weight", "is neither 0 nor 1", "use 0 (do not train on it) or 1")
    acts = False
    if message.get("tool_calls") is not None:
        acts = message["tool_calls"] != []
        yield from tool_calls(message["tool_calls"], f"{at}.tool_calls", calls)
    if message.get("function_call") is not None:
        acts = True
        yield from function_call(message["function_call"], f"{at}.function_call")
    text = message.get("content")
    if isinstance(text, str) and text.strip():
        return
    if not acts and (text is None or is_empty(text)) and refusal_of(message):
        text, remedy = "is a refusal without content, and is trained on as the answer", "write it as the content"
        yield Finding("refusal_as_answer", f"{at}.refusal", text, remedy, "warning")
    elif not acts and (text is None or is_empty(text)):
        place, remedy = f"{at}.content", "write the answer to learn, or add tool_calls"
        yield Finding("empty_assistant", place, "the assistant says nothing", remedy)
    elif text is not None:
        yield from content(message, at, required=False, may_be_empty=True)


def refusal_of(message: dict[str, Any]) -> str:
    """The refusal of an assistant message; empty: it has none."""
    refusal = message.get("refusal")
    return refusal if isinstance(refusal, str) and refusal.strip() else ""


def _tool(message: dict[str, Any], at: str, calls: set[str]) -> Iterator[Finding]:
    answered = message.get("tool_call_id")
    if answered is None:
        yield missing(at, "tool_call_id", "name the call that this answers")
    elif not isinstance(answered, str):
        yield wrong_type(f"{at}.tool_call_id", answered, "the id of an earlier tool call")
    elif answered not in calls:
        remedy = "use the id of an earlier tool_calls entry"
        yield Finding("unknown_tool_call", f"{at}.tool_call_id", "answers a call that was not made", remedy)
    yield from content(message, at, required=True, may_be_empty=True)


def content(message: dict[str, Any], at: str, *, required: bool, may_be_empty: bool) -> Iterator[Finding]:
    """Check the content of a message: a text, or a list of text parts."""
    text = message.get("content")
    if isinstance(text, str) and text:
        return
    place = f"{at}.content"
    if text is None:
        if required:
            yield missing(at, "content", f"add {_CONTENT}")
    elif isinstance(text, list):
        for index, part in enumerate(text):
            yield from _text_part(part, f"{place}[{index}]")
    elif not isinstance(text, str):
        yield wrong_type(place, text, _CONTENT)
    if not may_be_empty and text is not None and is_empty(text):
        yield Finding("empty_content", place, "is empty", "write something, or remove the message", "warning")


def _text_part(part: Any, at: str) -> Iterator[Finding]:
    if not isinstance(part, dict):
        yield wrong_type(at, part, 'an object {"type": "text", "text": "..."}')
    elif part.get("type") != "text":
        name = f"'{short(part['type'])}'" if isinstance(part.get("type"), str) else "missing"
        remedy = 'use {"type": "text", "text": "..."}; images and audio cannot be trained on here'
        yield Finding("unsupported_content", f"{at}.type", f"is {name}", remedy)
    elif not isinstance(part.get("text"), str):
        yield wrong_type(f"{at}.text", part.get("text"), "a string")
    else:
        yield from unknown_keys(part, _PART, at)


def is_empty(content: Any) -> bool:
    """Whether a content has no text. A value that is not a content at all is wrong, but not empty."""
    if isinstance(content, list):
        return all(
            isinstance(part, dict) and isinstance(part.get("text"), str) and not part["text"].strip()
            for part in content
        )
    return isinstance(content, str) and not content.strip()


def _misplaced(message: dict[str, Any], known: frozenset[str], at: str) -> Iterator[Finding]:
    """Findings for keys that a message of this role does not have. A key of another role is ignored with a warning; any
    other key may be misspelt."""
    for key in sorted((message.keys() - known) & _ANY_ROLE):
        if message[key] is not None:
            text = f"is ignored on a message of role '{message['role']}'"
            yield Finding("ignored_key", f"{at}.{key}", text, "remove it", "warning")
    yield from unknown_keys(message, _ANY_ROLE, at)


def _unanswered(messages: list[Any], at: str) -> Iterator[Finding]:
    """Findings for tool calls without an answer before the next turn. Calls of the last message need no answer: the
    model learns them."""
    opened: dict[str, str] = {}
    for index, message in enumerate(messages):
        if not isinstance(message, dict):
            return
        if message.get("role") == "tool":
            if isinstance(message.get("tool_call_id"), str):
                opened.pop(message["tool_call_id"], None)
            continue
        for place in opened.values():
            yield Finding("unanswered_tool_call", place, "has no answer", "add a tool message with its id", "warning")
        opened = {}
        calls = message.get("tool_calls")
        for number, call in enumerate(calls if isinstance(calls, list) else []):
            if isinstance(call, dict) and isinstance(call.get("id"), str):
                opened[call["id"]] = f"{at}[{index}].tool_calls[{number}]"


def beside_messages(row: dict[str, Any], at: str) -> Iterator[Finding]:
    """Check the keys beside the messages: tools, functions, parallel_tool_calls."""
    prefix = f"{at}." if at else ""
    if row.get("tools") is not None:
        yield from tools(row["tools"], f"{prefix}tools")
    if row.get("functions") is not None:
        yield from functions(row["functions"], f"{prefix}functions")
    if not isinstance(row.get("parallel_tool_calls"), bool | None):
        yield wrong_type(f"{prefix}parallel_tool_calls", row["parallel_tool_calls"], "true or false")
