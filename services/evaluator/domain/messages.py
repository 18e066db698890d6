"""Chat messages as text, so that content and tool calls are compared alike in references and in answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

# What a training row may say beside these (`weight`) is for the trainer, and servers may refuse it.
SENT = ("role", "content", "name", "tool_calls", "tool_call_id", "function_call")


def sendable(message: Mapping[str, Any]) -> dict[str, Any]:
    """The message without the keys that are only for training, and without nulls."""
    return {key: message[key] for key in SENT if message.get(key) is not None}


def content_text(content: Any) -> str:
    """A content as text; the text parts of a list are joined, other parts are left out."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def message_text(message: Mapping[str, Any]) -> str:
    """Content, then one line per tool call: `name({"argument": value})` with sorted keys."""
    functions = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    lines = [content_text(message.get("content")), *_calls([*functions, message.get("function_call")])]
    return "\n".join(line for line in lines if line)


def _calls(functions: Iterable[Any]) -> Iterable[str]:
    for function in functions:
        if isinstance(function, dict):
            yield f"{function.get('name', '')}({_canonical(function.get('arguments'))})"


def _canonical(arguments: Any) -> str:
    """Models write the same arguments with other spaces and orders; that is no difference."""
    if not isinstance(arguments, str):
        return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
