"""What vLLM gives to a chat template for the messages and tools that it was sent.

This follows vLLM 0.32: `entrypoints/openai/chat_completion/protocol.py` (which fields are kept, and in which order),
`renderers/chat_utils.py` (content parts, arguments, reasoning) and `renderers/hf.py` (`developer`). The order of keys
matters, because templates write calls and tools with `tojson`. Tests compare it with vLLM's own functions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from shared.conversation.content_format import ContentFormat
from shared.conversation.sent import text_of

_BILLING = "x-anthropic-billing-header"  # a line that Claude Code puts before its system prompt; vLLM drops it


def given_messages(messages: Sequence[Mapping[str, Any]], content: ContentFormat) -> list[dict[str, Any]]:
    """The messages as a template gets them, before `developer` is looked at: see `without_developer`."""
    return [_message(message, content) for message in messages]


def given_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """The tools as vLLM's pydantic models dump them: description and parameters always, `strict` only where it is
    set, unknown fields never."""
    if not tools:
        return None
    return [{"type": "function", "function": _function(tool["function"])} for tool in tools]


def without_developer(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages for a template that does not know `developer`: such messages become system messages, and where there
    is then a system message that is not the first, all of them become one."""
    if all(message["role"] != "developer" for message in messages):
        return messages
    converted = [
        {**{key: value for key, value in message.items() if key != "tools"}, "role": "system"}
        if message["role"] == "developer"
        else message
        for message in messages
    ]
    systems = [index for index, message in enumerate(converted) if message["role"] == "system"]
    if systems == [0]:
        return converted
    texts = [text_of(converted[index].get("content")) for index in systems]
    merged = {"role": "system", "content": "\n\n".join(text for text in texts if text)}
    return [merged, *(message for message in converted if message["role"] != "system")]


def _function(function: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": function["name"],
        "description": function.get("description"),
        "parameters": function.get("parameters"),
        **({} if function.get("strict") is None else {"strict": function["strict"]}),
    }


def _message(message: Mapping[str, Any], content: ContentFormat) -> dict[str, Any]:
    role = message["role"]
    texts = _texts(message.get("content"))
    if role == "system":
        texts = [text for text in map(_without_billing, texts) if text is not None]
    made: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    # many templates only take the text of a tool's result, so vLLM joins it for all
    if content == "openai" and role != "tool":
        made["content"] = [{"type": "text", "text": text} for text in texts]
    if role == "assistant":
        if calls := message.get("tool_calls"):
            made["tool_calls"] = [_call(call) for call in calls]
        reasoning = message.get("reasoning")
        reasoning = message.get("reasoning_content") if reasoning is None else reasoning
        if reasoning is not None:
            made |= {"reasoning": reasoning, "reasoning_content": reasoning}
    elif role == "tool" and "tool_call_id" in message:
        made["tool_call_id"] = message["tool_call_id"]
    if isinstance(message.get("name"), str):
        made["name"] = message["name"]
    if role == "developer":
        made["tools"] = message.get("tools")
    return made


def _texts(content: Any) -> list[str]:
    if content is None:
        return []
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def _without_billing(text: str) -> str | None:
    if not text.startswith(_BILLING):
        return text
    return text.partition("\n")[2] or None


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "id": call["id"],
        "function": {"arguments": _object(function["arguments"]), "name": function["name"]},
        "type": "function",
    }


def _object(arguments: str) -> dict[str, Any]:
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
