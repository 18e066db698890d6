"""Repairs harmless shapes of logged data, as a server reads them: each has a warning of the rules.

What is repaired is written into the splits, so that trainer and evaluator read ordinary rows.
"""

from __future__ import annotations

from typing import Any

from services.validate.domain.chat_messages import is_empty, refusal_of
from services.validate.domain.content import Row, input_of
from services.validate.domain.tools import is_blank


def repair(row: Row) -> None:
    """Repair a row that is right by the rules of its format, and mark it if anything was changed.

    An empty list of calls is left out, empty arguments are `{}`, and a refusal without content is the content.
    """
    if row.format == "completion":
        return
    messages = [*input_of(row)["messages"]]
    if row.format == "preference":
        messages += [row.value[side][0] for side in ("preferred_completion", "non_preferred_completion")]
    for message in messages:
        if message["role"] == "assistant":
            row.repaired |= _repair(message)


def _repair(message: dict[str, Any]) -> bool:
    changed = False
    if message.get("tool_calls") == []:
        del message["tool_calls"]
        changed = True
    called = [call["function"] for call in message.get("tool_calls") or ()]
    if message.get("function_call") is not None:
        called.append(message["function_call"])
    for function in called:
        if is_blank(function["arguments"]):
            function["arguments"] = "{}"
            changed = True
    content = message.get("content")
    if not called and (content is None or is_empty(content)) and (refusal := refusal_of(message)):
        message["content"] = refusal
        del message["refusal"]
        changed = True
    return changed
