"""Chat messages as text, tool calls included, so that references and answers are compared in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.evaluator.domain.tool_calls import as_lines, calls_of


def content_text(content: Any) -> str:
    """The text of a message's content; the text parts of a list are joined, other parts are left out."""
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def message_text(message: Mapping[str, Any]) -> str:
    """The content, then one line per tool call: `name({"argument": value})` with sorted keys. Thoughts that the server
    parsed (`reasoning_content`) are no part of it."""
    return as_lines(content_text(message.get("content")), calls_of(message))
