"""Answers and references as a client sees them, which is how they are compared: thoughts apart, tool calls as a
structure."""

from __future__ import annotations

from collections.abc import Sequence

from services.evaluator.domain.tool_calls import ToolCall, as_lines, written_calls
from shared.conversation.thoughts import parted
from shared.events import FrozenModel


class Reply(FrozenModel):
    """What is compared: `text` without thoughts, with a line per tool call, and the `calls` themselves."""

    text: str = ""
    calls: tuple[ToolCall, ...] = ()


def reply_of(text: str, calls: Sequence[ToolCall] = ()) -> Reply:
    """The reply in a text. `calls` are those that the server parsed, which `text` shows already; without them they are
    looked for in the text."""
    said = spoken(text)
    if calls:
        return Reply(text=said, calls=tuple(calls))
    said, written = written_calls(said)
    return Reply(text=as_lines(said, written), calls=written)


def spoken(text: str) -> str:
    """The text without the thoughts that it begins with. The opening may be missing, because it stood in the prompt. A
    thought without an end was cut, and nothing was said."""
    found = parted(text)
    return found.answer if found.thoughts is None else found.answer.lstrip()
