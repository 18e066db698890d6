"""Converts messages and tools to what chat templates expect, in the same way as vLLM. The rows must be valid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE_FIELDS = ("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "reasoning_content")
"""The fields of a message that a chat template may use; `weight` and unknown fields are left out."""


def text_of(content: Any) -> str:
    """The text of a message's content: the content itself, or its parts joined as vLLM joins them."""
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(part["text"] for part in content)


def template_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Convert messages: content becomes text, arguments become objects, an older `function_call` becomes a tool
    call."""
    return [_template_message(message) for message in messages]


def template_tools(asked: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of a chat row, or of the input of a preference pair. Older `functions` become tools. None if it has
    none."""
    tools = list(asked.get("tools") or ())
    tools += [{"type": "function", "function": function} for function in asked.get("functions") or ()]
    return tools or None


def _template_message(message: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in message.items() if key in TEMPLATE_FIELDS and value is not None}
    made["content"] = text_of(message.get("content"))
    calls = [(call.get("id"), call["function"]) for call in message.get("tool_calls") or ()]
    if function_call := made.pop("function_call", None):
        calls.append((None, function_call))
    if calls:
        made["tool_calls"] = [
            {
                **({"id": identity} if identity else {}),
                "type": "function",
                "function": {"name": function["name"], "arguments": _arguments(function)},
            }
            for identity, function in calls
        ]
    if made["role"] == "function":
        made["role"] = "tool"
    return made


def _arguments(function: Mapping[str, Any]) -> Any:
    arguments = function.get("arguments") or "{}"
    return json.loads(arguments) if isinstance(arguments, str) else arguments
