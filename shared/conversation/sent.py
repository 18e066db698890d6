"""What a client sends for a row: its messages and tools in the form of today's OpenAI API. The rows must be valid."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

TEMPLATE_FIELDS = ("role", "content", "name", "tool_calls", "function_call", "tool_call_id", "reasoning_content")
"""The fields of a message that a chat template may use; `weight` and unknown fields are left out."""


def text_of(content: Any) -> str:
    """The text of a message's content: the content itself, or the texts of its parts, one per line."""
    if isinstance(content, str) or content is None:
        return content or ""
    return "\n".join(part["text"] for part in content)


def sent_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages as a server takes them: without `weight`, unknown fields and nulls.

    vLLM ignores the older `function_call` and wants an id for every call and every result, so that a `function_call`
    becomes a tool call, and a message of the role `function` the result of the latest call.
    """
    sent = []
    latest = ""
    for index, message in enumerate(messages):
        made = {key: message[key] for key in TEMPLATE_FIELDS if message.get(key) is not None}
        calls = [_call(call, index, number) for number, call in enumerate(made.pop("tool_calls", ()))]
        if function_call := made.pop("function_call", None):
            calls.append(_call({"function": function_call}, index, len(calls)))
        if calls:
            made["tool_calls"] = calls
            latest = calls[-1]["id"]
        if made["role"] == "function":
            made |= {"role": "tool", "tool_call_id": latest}
        sent.append(made)
    return sent


def sent_tools(asked: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The tools of a chat row, or of the input of a preference pair. Older `functions` become tools. None if it has
    none: servers refuse an empty list."""
    tools = list(asked.get("tools") or ())
    tools += [{"type": "function", "function": function} for function in asked.get("functions") or ()]
    return tools or None


def _call(call: Mapping[str, Any], message: int, number: int) -> dict[str, Any]:
    function = call["function"]
    arguments = function.get("arguments") or "{}"
    return {
        # Mistral's templates want ids of exactly nine letters and digits
        "id": call.get("id") or f"call{message:03}{number:02}"[:9],
        "type": "function",
        "function": {
            "name": function["name"],
            "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False),
        },
    }
