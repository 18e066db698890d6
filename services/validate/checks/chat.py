"""Rows of the chat format: `{"messages": [...], "tools": [...]}`."""

from __future__ import annotations

from collections.abc import Iterator

from services.validate.checks.base import Check
from services.validate.domain import chat_messages as rules
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, short, unknown_keys
from services.validate.domain.tools import called_names, offered_names

_KEYS = frozenset({"messages", "tools", "functions", "parallel_tool_calls", "metadata"})


class Chat(Check):
    """The rules of a chat row: messages, tools, and an assistant message at the end that is trained on."""

    name = "chat"
    by_row = False

    def row(self, row: Row) -> Iterator[Finding]:
        if row.format != "chat" or row.plain:
            return
        value = row.value
        if not value.keys() <= _KEYS:
            yield from unknown_keys(value, _KEYS, "")
        yield from rules.beside_messages(value, "")
        messages = value["messages"]
        yield from rules.conversation(messages, "messages")
        if not isinstance(messages, list) or not messages or not all(isinstance(one, dict) for one in messages):
            return
        last = len(messages) - 1
        role = messages[last].get("role")
        if isinstance(role, str) and role in rules.ROLES and role != "assistant":
            yield Finding(
                "last_message_not_assistant",
                f"messages[{last}].role",
                f"the last message is of role '{role}'",
                "end the example with the assistant message to learn",
            )
        elif role == "assistant" and all(one.get("weight") == 0 for one in messages if one.get("role") == role):
            remedy = "set the weight of at least one assistant message to 1"
            yield Finding("nothing_to_learn", "messages", "every assistant message has weight 0", remedy)
        if offered := offered_names(value):
            yield from _calls(messages, offered)


def _calls(messages: list[dict[str, object]], offered: set[str]) -> Iterator[Finding]:
    for index, message in enumerate(messages):
        for name in called_names(message):
            if name not in offered:
                text, remedy = f"calls '{short(name)}', which the row does not offer", "add it to tools"
                yield Finding("unknown_tool", f"messages[{index}]", text, remedy, "warning")
