"""Chat messages as text, tool calls included, so that references and answers are compared in the same form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.evaluator.domain.tool_calls import as_lines, calls_of


def content_text(content: Any, between: str = "\n") -> str:
    """The text of a message's content; the text parts of a list are joined, other parts are left out. `between`: what
    the base's chat template has between parts."""
    if isinstance(content, list):
        return between.join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def message_text(message: Mapping[str, Any], between: str = "\n") -> str:
    """The content, then one line per tool call: `name({"argument": value})` with sorted keys. Thoughts that the server
    parsed (`reasoning_content`) are no part of it. `between`: see `content_text`."""
    return as_lines(content_text(message.get("content"), between), calls_of(message))
