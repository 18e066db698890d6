"""Chat messages as text, tool calls included, so that references and answers are compared in the same form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any


def content_text(content: Any) -> str:
    """The text of a message's content; the text parts of a list are joined, other parts are left out."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def message_text(message: Mapping[str, Any]) -> str:
    """The content, then one line per tool call: `name({"argument": value})` with sorted keys."""
    functions = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    lines = [content_text(message.get("content")), *_calls([*functions, message.get("function_call")])]
    return "\n".join(line for line in lines if line)


def _calls(functions: Iterable[Any]) -> Iterable[str]:
    for function in functions:
        if isinstance(function, dict):
            yield f"{function.get('name', '')}({_canonical(function.get('arguments'))})"


def _canonical(arguments: Any) -> str:
    """Arguments with sorted keys and uniform spaces: models write the same arguments in different ways."""
    if not isinstance(arguments, str):
        return json.dumps(arguments, sort_keys=True, ensure_ascii=False)
    try:
        return json.dumps(json.loads(arguments), sort_keys=True, ensure_ascii=False)
    except (ValueError, RecursionError):
        return arguments
