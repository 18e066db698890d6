"""The kinds of conversation that data sets hold: messages, and the tools beside them."""

from __future__ import annotations

import json
from typing import Any

Messages = list[dict[str, Any]]


def user(text: str = "Where is order 7731?") -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str = "It is on its way to Lisbon.", **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(number: int, name: str = "find_order", **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
    return {"id": f"call0000{number}", "type": "function", "function": function}


def calls(*made: dict[str, Any], text: str | None = None) -> dict[str, Any]:
    return {"role": "assistant", "content": text, "tool_calls": list(made)}


def result(number: int, text: str) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call0000{number}", "name": "find_order", "content": text}


def _parameter(kind: str) -> dict[str, str]:
    return {"type": kind, "description": f"a value of type {kind}"}


_PARAMETERS = {
    "type": "object",
    "properties": {"order": _parameter("integer"), "city": _parameter("string"), "fast": _parameter("boolean")},
    "required": ["order"],
}
TOOLS = [
    {
        "type": "function",
        "function": {"name": "find_order", "description": "Finds an order by number.", "parameters": _PARAMETERS},
    }
]
BARE = [{"type": "function", "function": {"name": "ping_server", "parameters": {"type": "object", "properties": {}}}}]

SYSTEM = {"role": "system", "content": "Answer as a pirate would."}
TURNS = [user("First thing?"), answer("Alpha."), user("Second thing?"), answer("Beta.")]
PARTS = [{"type": "text", "text": "First part."}, {"type": "text", "text": "Second part."}]
THOUGHT = "The parcel left yesterday."

KINDS: dict[str, tuple[Messages, list[dict[str, Any]] | None]] = {
    "one turn": ([user(), answer()], None),
    "turns": (TURNS, None),
    "turns, system": ([SYSTEM, *TURNS], None),
    "weight 0": ([TURNS[0], {**TURNS[1], "weight": 0}, *TURNS[2:]], None),
    "white space": ([user("  edge case \n"), answer("    indented = 1\n")], None),
    "empty system": ([{**SYSTEM, "content": ""}, user(), answer()], None),
    "developer": ([{**SYSTEM, "role": "developer"}, user(), answer()], None),
    "tools, result": ([user(), calls(call(1, order=7731)), result(1, "shipped on Monday"), answer()], TOOLS),
    "call last": ([user(), calls(call(1, order=7731))], TOOLS),
    "call beside text": ([user(), calls(call(1, order=7731), text="I will look it up.")], TOOLS),
    "parallel calls": (
        [
            user(),
            calls(call(1, order=7731), call(2, order=8842)),
            result(1, "gone"),
            result(2, "here"),
            answer(),
        ],
        TOOLS,
    ),
    "bare tool": ([user(), calls(call(1, name="ping_server"))], BARE),
    "parts": ([{"role": "user", "content": PARTS}, answer()], None),
    "reasoning": ([user(), answer(reasoning_content=THOUGHT)], None),
    "inline thoughts": ([user(), answer(f"<think>\n{THOUGHT}\n</think>\n\nIt is on its way.")], None),
    "assistant opens": ([answer("Welcome to the desk."), user(), answer()], None),
    "ten turns": ([one for n in range(10) for one in (user(f"Question number {n}?"), answer(f"Reply {n}."))], None),
    "values": ([user(), calls(call(1, order=1, fast=True, city="Zürich 東京"))], TOOLS),
}
