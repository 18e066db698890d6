"""Rows become questions with a reference, and few-shot prompts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.dataset import choose
from services.evaluator.domain.examples import Example, parse_row
from services.evaluator.domain.questions.prompts import SEPARATOR, few_shot, few_shot_prompts, zero_shot
from shared.errors import InputError


def row(value: Any) -> Example:
    return parse_row(json.dumps(value), 7)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def test_a_chat_row_asks_everything_before_its_last_trained_answer() -> None:
    found = row(
        {"messages": [user("1"), assistant("A", weight=0), user("2"), assistant("B"), assistant("C", weight=0)]}
    )
    assert found.reference == "B"
    assert [message["content"] for message in found.messages] == ["1", "A", "2"]
    assert all("weight" not in message for message in found.messages)


def test_tool_calls_are_a_reference_in_one_spelling() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "track", "arguments": '{"b":1,  "a":2}'}}
    tools = [{"type": "function", "function": {"name": "track"}}]
    found = row({"messages": [user("where?"), {"role": "assistant", "tool_calls": [call]}], "tools": tools})
    assert found.reference == 'track({"a": 2, "b": 1})'
    assert list(found.tools) == tools


def test_older_functions_become_tools() -> None:
    found = row({"messages": [user("x"), assistant("y")], "functions": [{"name": "f"}]})
    assert found.tools == ({"type": "function", "function": {"name": "f"}},)


@pytest.mark.parametrize("between", ["", "\n"])
def test_parts_are_sent_as_they_are_and_those_of_the_answer_are_joined_as_the_base_writes_them(between: str) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}]
    found = parse_row(json.dumps({"messages": messages}), 1, between)
    assert found.reference == f"a{between}b"
    assert zero_shot(found).messages == ({"role": "user", "content": parts},)
    assert few_shot(found, [found]).messages[0] == {"role": "user", "content": parts}


def test_completion_and_preference_rows() -> None:
    assert row({"prompt": "2+2=", "completion": " 4"}) == Example(line=7, prompt="2+2=", reference=" 4")
    pair = row(
        {
            "input": {"messages": [user("hi")]},
            "preferred_completion": [assistant("good")],
            "non_preferred_completion": [assistant("bad")],
        }
    )
    assert (pair.messages, pair.reference) == ((user("hi"),), "good")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("{", "is not JSON"),
        ("[1]", "is not an object"),
        ("{}", "'messages' is missing"),
        ('{"messages": "x"}', "'messages' is not a list"),
        ('{"messages": [{"role": "user", "content": "x"}]}', "holds no assistant message"),
        ('{"input": 1}', "'input' is not an object"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(raw: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_row(raw, 12)
    assert "Line 12" in caught.value.message
    assert words in caught.value.message


def test_the_choice_is_seeded_sorted_and_without_repetition() -> None:
    first = choose(1_000, 50, seed=3)
    assert first == choose(1_000, 50, seed=3) != choose(1_000, 50, seed=4)
    assert first == sorted(set(first)) and len(first) == 50
    assert choose(3, 50, seed=0) == [0, 1, 2]


def test_few_shot_keeps_the_system_message_first_and_the_question_last() -> None:
    asked = row({"messages": [{"role": "system", "content": "S"}, user("Q"), assistant("A")]})
    shot = row({"messages": [{"role": "system", "content": "other"}, user("q1"), assistant("a1")]})
    said = [(message["role"], message["content"]) for message in few_shot(asked, [shot]).messages]
    assert said == [("system", "S"), ("user", "q1"), ("assistant", "a1"), ("user", "Q")]


def test_few_shot_shows_solved_calls_as_calls_with_ids_of_their_own() -> None:
    def called(number: int) -> dict[str, Any]:
        arguments = f'{{"order": {number}}}'
        return {"id": "call_1", "type": "function", "function": {"name": "track", "arguments": arguments}}

    result = {"role": "tool", "tool_call_id": "call_1", "content": "sent"}
    one = row({"messages": [user("1?"), {"role": "assistant", "tool_calls": [called(1)], "reasoning_content": "hm"}]})
    two = row({"messages": [user("2?"), {"role": "assistant", "tool_calls": [called(2)]}, result, assistant("Sent.")]})
    asked = row({"messages": [user("3?"), {"role": "assistant", "tool_calls": [called(3)]}, result, assistant("A")]})

    messages = few_shot(asked, [one, two]).messages

    assert [message.get("content") for message in messages if message["role"] != "assistant"] == [
        *("1?", "2?", "sent", "3?", "sent"),
    ]
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    assert [call["function"] for call in calls] == [called(number)["function"] for number in (1, 2, 3)]
    assert len({call["id"] for call in calls}) == 3
    results = [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert results == [calls[1]["id"], calls[2]["id"]], "each result belongs to its own call"
    assert "hm" not in str(messages), "thoughts are not shown"


def test_few_shot_of_completions_stops_before_the_next_example() -> None:
    prompt = few_shot(row({"prompt": "Q", "completion": "A"}), [row({"prompt": "q", "completion": "a"})])
    assert prompt.text == f"qa{SEPARATOR}Q"
    assert prompt.stop == (SEPARATOR,)
    assert zero_shot(row({"prompt": "Q", "completion": "A"})).stop == ()


def test_a_shorter_few_shot_prompt_has_one_solved_example_less() -> None:
    asked = row({"prompt": "Q", "completion": "A"})
    solved = [row({"prompt": f"q{index}", "completion": "a"}) for index in range(3)]
    assert [prompt.text.count("q") if prompt.text else 0 for prompt in few_shot_prompts(asked, solved)] == [3, 2, 1, 0]
