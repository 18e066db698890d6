"""Rows of the dataset as questions with a reference answer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from services.evaluator.domain.kinds.structure import schema_in
from services.evaluator.domain.messages import message_text
from services.evaluator.domain.replies import Reply, reply_of
from services.evaluator.domain.tool_calls import ToolCall, calls_of
from shared.conversation import sent_messages, sent_tools
from shared.errors import InputError
from shared.events import FrozenModel

VALUE_CHARS = 64
"""A value of a row's metadata is cut there."""


class Example(FrozenModel):
    """One row: the question, which is all that comes before the answer, and the reference, which is the answer it
    should get.

    A chat row has `messages` (and perhaps `tools`), a completion row has `prompt`. `line` counts from 1.
    """

    line: int
    reference: str
    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    prompt: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    """The tool calls of the reference, which has a line for each."""
    thoughts: str = ""
    """The thoughts of the reference (`reasoning_content`), which are not compared."""
    metadata: Mapping[str, str] = {}
    """Of the row, by which the test rows are sliced. Only plain values count."""
    response_schema: dict[str, Any] | None = None
    """The JSON schema of the row's `response_format`, if it has one."""
    answer: dict[str, Any] | None = None
    """Where the reference calls tools: the message itself, without thoughts, as a solved example shows it."""

    def reply(self) -> Reply:
        """The reference as a client would see it: what answers are compared with."""
        return reply_of(self.reference, self.tool_calls)


def parse_row(raw: str | bytes, line: int, between: str = "\n") -> Example:
    """Parse a chat, completion or preference row; its keys tell which it is.

    The reference is the last assistant turn that is trained on, or the preferred answer of a preference row. `between`:
    what the base's chat template has between the text parts of an answer; messages are sent with their parts.

    Raises:
        InputError: code `invalid_test_file`, naming line, field and remedy.
    """
    try:
        row = json.loads(raw)  # not strictly: the validator has refused what not every reader of JSON takes
    except (ValueError, RecursionError):
        _refuse(line, "the line", "is not JSON; write one JSON object per line")
    if not isinstance(row, dict):
        _refuse(line, "the line", "is not an object; write one JSON object per line")
    if "messages" in row:
        return _chat(row, line, between)
    if "input" in row:
        return _preference(row, line, between)
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        return Example(
            line=line,
            prompt=row["prompt"],
            reference=row["completion"],
            metadata=_metadata(row),
            response_schema=schema_in(row.get("response_format")),
        )
    return _refuse(line, "'messages'", "is missing; give messages, prompt and completion, or input and completions")


def _chat(row: Mapping[str, Any], line: int, between: str) -> Example:
    messages = _messages(row["messages"], line, "'messages'")
    answers = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
    trained = [index for index in answers if messages[index].get("weight") != 0]
    if not answers:
        _refuse(line, "'messages'", "holds no assistant message; add the answer that the model should give")
    last = (trained or answers)[-1]
    return Example(
        line=line,
        messages=tuple(sent_messages(messages[:last])),
        tools=tuple(sent_tools(row) or ()),
        metadata=_metadata(row),
        response_schema=schema_in(row.get("response_format")),
        reference=message_text(messages[last], between),
        tool_calls=calls_of(messages[last]),
        thoughts=_thoughts(messages[last]),
        answer=_calling(messages[last]),
    )


def _preference(row: Mapping[str, Any], line: int, between: str) -> Example:
    asked = row["input"]
    if not isinstance(asked, dict):
        _refuse(line, "'input'", "is not an object; give it messages")
    preferred = _messages(row.get("preferred_completion"), line, "'preferred_completion'")
    return Example(
        line=line,
        metadata=_metadata(row),
        messages=tuple(sent_messages(_messages(asked.get("messages"), line, "'input.messages'"))),
        tools=tuple(sent_tools(asked) or ()),
        reference=message_text(preferred[-1], between),
        tool_calls=calls_of(preferred[-1]),
        thoughts=_thoughts(preferred[-1]),
        answer=_calling(preferred[-1]),
    )


def _metadata(row: Mapping[str, Any]) -> dict[str, str]:
    given = row.get("metadata")
    if not isinstance(given, dict):
        return {}
    return {key: str(value)[:VALUE_CHARS] for key, value in given.items() if isinstance(value, str | int | float)}


def _calling(message: dict[str, Any]) -> dict[str, Any] | None:
    if not calls_of(message):
        return None
    return {key: part for key, part in sent_messages([message])[0].items() if key != "reasoning_content"}


def _thoughts(message: Mapping[str, Any]) -> str:
    thoughts = message.get("reasoning_content")
    return thoughts if isinstance(thoughts, str) else ""


def _messages(value: Any, line: int, field: str) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(message, dict) for message in value):
        _refuse(line, field, "is not a list of messages; give each a role and a content")
    return value


def _refuse(line: int, field: str, trouble: str) -> NoReturn:
    raise InputError("invalid_test_file", f"Line {line} of the split: {field} {trouble}.", "training_file")
