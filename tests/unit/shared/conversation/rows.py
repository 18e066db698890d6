"""Conversations of the kinds that data sets hold, and templates with the features that families have."""

from __future__ import annotations

from typing import Any

PARTS = [{"type": "text", "text": "One."}, {"type": "text", "text": "Two."}]
USER = {"role": "user", "content": "Where is order 7?"}
ANSWER = {"role": "assistant", "content": "On its way."}


def call(number: int = 1, arguments: str = '{"order": 7, "fast": true, "city": "Zürich"}') -> dict[str, Any]:
    return {"id": f"call0000{number}", "type": "function", "function": {"name": "find", "arguments": arguments}}


RESULT = {"role": "tool", "tool_call_id": "call00001", "content": "shipped"}
TOOL = {
    "function": {
        "strict": True,
        "parameters": {"type": "object", "properties": {"order": {"type": "integer"}}},
        "description": "Finds an order.",
        "name": "find",
    },
    "type": "function",
}
BARE_TOOL = {"type": "function", "function": {"name": "find"}}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "plain": [USER, ANSWER],
    "several turns": [{"role": "system", "content": "Be short."}, USER, ANSWER, USER, {**ANSWER, "weight": 0}],
    "white space": [{"role": "user", "content": "  hi \n"}, {"role": "assistant", "content": "    x = 1\n"}],
    "empty system": [{"role": "system", "content": ""}, USER, ANSWER],
    "developer": [{"role": "developer", "content": "Be short."}, USER, ANSWER],
    "developer later": [
        {"role": "system", "content": "A"},
        USER,
        {"role": "developer", "content": PARTS},
        USER,
        ANSWER,
    ],
    "system parts": [{"role": "system", "content": PARTS}, {"role": "developer", "content": ""}, USER, ANSWER],
    "billing": [{"role": "system", "content": "x-anthropic-billing-header: cch=1\nBe short."}, USER, ANSWER],
    "tools and result": [USER, {"role": "assistant", "content": None, "tool_calls": [call()]}, RESULT, ANSWER],
    "a result in parts": [USER, {"role": "assistant", "tool_calls": [call()]}, {**RESULT, "content": PARTS}, ANSWER],
    "a call last": [USER, {"role": "assistant", "tool_calls": [call()]}],
    "a call beside text": [USER, {"role": "assistant", "content": "I look.", "tool_calls": [call()]}],
    "parallel calls": [USER, {"role": "assistant", "tool_calls": [call(1), call(2, "")]}],
    "arguments that are no object": [USER, {"role": "assistant", "tool_calls": [call(1, "[1]"), call(2, "{")]}],
    "no calls": [USER, {**ANSWER, "tool_calls": []}],
    "parts": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": PARTS}],
    "names": [{**USER, "name": "ann"}, {**ANSWER, "name": "bob"}],
    "reasoning": [USER, {**ANSWER, "reasoning_content": "It was sent."}, USER, ANSWER],
    "inline thoughts": [USER, {"role": "assistant", "content": "<think>\nIt was sent.\n</think>\n\nOn its way."}],
    "the assistant opens": [{"role": "assistant", "content": "Hello!"}, USER, ANSWER],
    "refusal": [USER, {"role": "assistant", "content": "No.", "refusal": None, "annotations": []}],
    "old calls": [
        USER,
        {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": '{"order": 7}'}},
        {"role": "function", "name": "find", "content": "shipped"},
        ANSWER,
    ],
}

DUMP = "{{ messages | tojson }}{{ tools | tojson }}"
"""A template that shows all that it is given, in the order in which it is given."""
DUMP_PARTS = DUMP + "{% for message in messages %}{% for part in message.content %}{% endfor %}{% endfor %}"
DUMP_DEVELOPER = DUMP + "{% if messages[0].role == 'developer' %}{% endif %}"
