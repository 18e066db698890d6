"""What counts as a difference between a row and what the server makes of it, and what does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.validate.domain.served import Difference, Given, Turn, answer_difference, prompt_difference, sample
from services.validate.domain.served.comparison import token_name

TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def difference(
    message: dict[str, Any],
    content: str = "",
    reasoning: str | None = None,
    calls: tuple[tuple[str, str], ...] = (),
    *,
    tools: Any = None,
    tools_parsed: bool = True,
) -> tuple[str | None, str | None]:
    turn = Turn("messages[1]", [], tools, None, message, [1], [2, 3], True)
    found, note = answer_difference(turn, Given(content, reasoning, calls), tools_parsed=tools_parsed)
    return (found.message if found else None), note


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ({"content": "Hello"}, {"content": "Hello"}),
        ({"content": "  Hello \n"}, {"content": "Hello"}),
        ({"content": "Zu\u0308rich"}, {"content": "Zürich"}),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"content": "ab"}),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"content": "a\nb"}),
        ({"content": "yes", "reasoning_content": "hm\n"}, {"content": "\n\nyes", "reasoning": "\nhm"}),
        ({"content": "yes"}, {"content": "yes", "reasoning": "\n\n"}),
        ({"content": "yes"}, {"content": "<think>\n\n</think>\n\nyes"}),
        ({"content": "<think>hm</think>yes"}, {"content": "yes", "reasoning": "hm"}),
        ({"content": "<think>\n\n</think>yes"}, {"content": "yes"}),
    ],
)
def test_what_is_the_same(message: dict[str, Any], given: dict[str, Any]) -> None:
    assert difference(message, **given) == (None, None)


@pytest.mark.parametrize(
    ("message", "given"),
    [
        ({"content": "Hello"}, {"content": "Hello!"}),
        ({"content": "Hello"}, {"content": ""}),
        ({"content": "a b"}, {"content": "a  b"}),
        ({"content": "yes", "reasoning_content": "hm"}, {"content": "yes"}),
        ({"content": "yes"}, {"content": "", "reasoning": "yes"}),
        ({"content": "yes"}, {"content": "yes", "calls": (("weather", "{}"),), "tools": TOOLS}),
    ],
)
def test_what_is_different(message: dict[str, Any], given: dict[str, Any]) -> None:
    assert difference(message, **given)[0] is not None


def test_thoughts_that_the_server_leaves_in_the_text_are_the_same_and_said() -> None:
    message = {"content": "yes", "reasoning_content": "hm"}
    assert difference(message, "hm\n</think>\n\nyes") == (
        None,
        "thoughts come back within the text: the server has no reasoning parser",
    )


@pytest.mark.parametrize(
    ("name", "arguments", "same"),
    [
        ("weather", '{"at": {"n": 1.0, "on": true}, "city": "Z\\u00fcrich"}', True),
        ("weather", '{"city": "Zürich", "at": {"on": true, "n": 1}}', True),
        ("weather", '{"city": "Zürich", "at": {"on": 1, "n": 1}}', False),
        ("weather", '{"city": " Zürich", "at": {"on": true, "n": 1}}', False),
        ("weather", '{"city": "Zürich"', False),
        ("whether", '{"city": "Zürich", "at": {"on": true, "n": 1}}', False),
    ],
)
def test_calls_are_compared_by_name_and_by_the_values_of_their_arguments(name: str, arguments: str, same: bool) -> None:
    message = {"content": "Hm.", "tool_calls": [call("weather", city="Zürich", at={"n": 1, "on": True})]}
    found, note = difference(message, "Hm.", calls=((name, arguments),), tools=TOOLS)
    assert ((found is None), note) == (same, None)


def test_a_call_that_comes_back_as_text_is_a_difference() -> None:
    message = {"tool_calls": [call("weather")]}
    found, _ = difference(message, '<call>{"name": "weather"}', tools=TOOLS)
    assert found == "the server reads 0 calls in this answer, the row has 1"


@pytest.mark.parametrize(
    ("tools", "parsed", "why"), [(TOOLS, False, "the server has no tool parser"), (None, True, "offer no tools")]
)
def test_a_call_that_no_server_would_read_is_not_asked_about(tools: Any, parsed: bool, why: str) -> None:
    message = {"content": "Hm.", "tool_calls": [call("weather")]}
    found, note = difference(message, 'Hm.<call>{"name": "weather"}', tools=tools, tools_parsed=parsed)
    assert found is None and note is not None and why in note
    assert difference(message, "Oh.<call>", tools=tools, tools_parsed=parsed)[0] is not None


def test_the_first_token_that_differs_is_named() -> None:
    found = prompt_difference("messages[2]", [1, 2, 3], [1, 9, 3, 4], {2: "'a'", 9: "'<b>'"}.__getitem__)
    assert isinstance(found, Difference) and found.field == "messages[2]"
    assert "at token 1 the server has '<b>', the training has 'a' (4 and 3 tokens)" in found.message
    assert prompt_difference("", [1, 2], [1, 2], str) is None
    shorter = prompt_difference("", [1, 2], [1], str)
    assert shorter is not None and "at token 1 the server has its end, the training has 2" in shorter.message


def test_a_message_never_shows_text_of_the_row() -> None:
    row = {"messages": [{"role": "user", "content": "My Secret is blue"}], "tools": [{"function": {"name": "paint"}}]}
    assert token_name("secret", False, row) == "other text"
    assert token_name(" blue", False, row) == "other text"
    assert token_name("paint", False, row) == "other text"
    assert token_name("\ufffd", False, row) == "other text"
    assert token_name("\n", False, row) == "'\\n'"
    assert token_name("<|im_start|>", True, row) == "'<|im_start|>'"
    assert token_name(" Knowledge cutoff, and much more", False, row) == "' Knowledge cutoff, …'"


def test_a_sample_is_the_same_for_the_same_seed() -> None:
    assert sample(10, 10, 1) is None
    chosen = sample(1000, 50, 1)
    assert chosen is not None and len(chosen) == 50 and max(chosen) < 1000
    assert sample(1000, 50, 1) == chosen != sample(1000, 50, 2)
