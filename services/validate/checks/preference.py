"""Rows of the preference format: an input, the preferred answer to it, and one that is not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.validate.checks.base import Check
from services.validate.domain import chat_messages as rules
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, missing, unknown_keys, wrong_type

_KEYS = frozenset({"input", "preferred_completion", "non_preferred_completion", "metadata"})
_INPUT_KEYS = frozenset({"messages", "tools", "parallel_tool_calls"})
_ANSWER = "a list of exactly one assistant message"


class Preference(Check):
    """The rules of a preference row: a conversation to answer, and two answers of one message each."""

    name = "preference"
    by_row = False

    def row(self, row: Row) -> Iterator[Finding]:
        if row.format != "preference":
            return
        value = row.value
        yield from unknown_keys(value, _KEYS, "")
        yield from _input(value)
        answers = [value.get("preferred_completion"), value.get("non_preferred_completion")]
        for key in ("preferred_completion", "non_preferred_completion"):
            yield from _answer(value, key)
        if answers[0] is not None and answers[0] == answers[1]:
            remedy = "prefer one answer over another, or remove the row"
            text = "is the same as preferred_completion"
            yield Finding("same_completions", "non_preferred_completion", text, remedy, "warning")


def _input(value: dict[str, Any]) -> Iterator[Finding]:
    if "input" not in value:
        yield missing("", "input", 'add {"messages": [...]}, the conversation to answer')
        return
    asked = value["input"]
    if not isinstance(asked, dict):
        yield wrong_type("input", asked, 'an object {"messages": [...]}')
        return
    yield from unknown_keys(asked, _INPUT_KEYS, "input")
    yield from rules.beside_messages(asked, "input")
    if "messages" not in asked:
        yield missing("input", "messages", "add the conversation to answer")
        return
    yield from rules.conversation(asked["messages"], "input.messages")
    if isinstance(asked["messages"], list) and asked["messages"]:
        last = asked["messages"][-1]
        if isinstance(last, dict) and last.get("role") == "assistant":
            place = f"input.messages[{len(asked['messages']) - 1}].role"
            remedy = "end the input with the user's message; the answers belong in the two completions"
            yield Finding("last_message_is_assistant", place, "the input ends with an answer", remedy)


def _answer(value: dict[str, Any], key: str) -> Iterator[Finding]:
    if key not in value:
        yield missing("", key, f"add {_ANSWER}")
        return
    answer = value[key]
    if not isinstance(answer, list) or len(answer) != 1:
        found = f"has {len(answer)} messages" if isinstance(answer, list) else "is no list"
        yield Finding("wrong_type", key, found, f"make it {_ANSWER}")
        return
    yield from rules.one_message(answer[0], f"{key}[0]", set())
    if isinstance(answer[0], dict) and answer[0].get("role") in set(rules.ROLES) - {"assistant"}:
        yield Finding("invalid_role", f"{key}[0].role", f"is '{answer[0]['role']}'", "make it assistant")
