"""The rules of the three formats: what a user did wrong, and where."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit.validate.conftest import Examine, chats, completions, preferences

USER = {"role": "user", "content": "hi"}
ANSWER = {"role": "assistant", "content": "hello"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "it"}'}}
CALLING = {"role": "assistant", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "seen"}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}


def call(**changes: Any) -> dict[str, Any]:
    return {**CALL, **changes}


def chat(*messages: Any, **beside: Any) -> dict[str, Any]:
    return {"messages": list(messages), **beside}


@pytest.mark.parametrize(
    "row",
    [
        chat(USER, ANSWER),
        chat({"role": "developer", "content": "be kind"}, USER, ANSWER),
        chat(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}),
        chat({"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, ANSWER),
        chat({**USER, "name": "Ada"}, ANSWER),
        chat(USER, CALLING, RESULT, ANSWER, tools=[TOOL], parallel_tool_calls=False),
        chat(USER, {**CALLING, "content": None}, tools=[TOOL]),
        chat(
            USER,
            {"role": "assistant", "content": "", "function_call": {"name": "look", "arguments": "{}"}},
            {"role": "function", "name": "look", "content": "seen"},
            ANSWER,
            functions=[{"name": "look"}],
        ),
        chat(USER, {**ANSWER, "refusal": None, "weight": None}, tools=None),
        completions(1)[0],
        {"prompt": "", "completion": "x"},
        preferences(1)[0],
    ],
)
def test_good_rows_have_no_problems(row: dict[str, Any], run: Examine) -> None:
    filler = completions(10, 1) if "prompt" in row else preferences(10, 1) if "input" in row else chats(10)
    report = run([row, *filler]).report
    assert report.training.problems == ()
    assert report.ok


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        (chat(), "no_messages", "messages"),
        ({"messages": {"role": "user"}}, "wrong_type", "messages"),
        (chat("hi", ANSWER), "wrong_type", "messages[0]"),
        (chat({"role": None, "content": "x"}, ANSWER), "missing_field", "messages[0].role"),
        (chat({"role": "bot", "content": "x"}, ANSWER), "invalid_role", "messages[0].role"),
        (chat({"role": ["user"], "content": "x"}, ANSWER), "invalid_role", "messages[0].role"),
        (chat({"role": "user"}, ANSWER), "missing_field", "messages[0].content"),
        (chat({"role": "user", "content": {"text": "x"}}, ANSWER), "wrong_type", "messages[0].content"),
        (chat({"role": "user", "content": ["x"]}, ANSWER), "wrong_type", "messages[0].content[0]"),
        (
            chat({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, ANSWER),
            "unsupported_content",
            "messages[0].content[0].type",
        ),
        (chat(USER), "last_message_not_assistant", "messages[0].role"),
        (chat(USER, ANSWER, USER), "last_message_not_assistant", "messages[2].role"),
        (chat(USER, {"role": "assistant"}), "empty_assistant", "messages[1].content"),
        (
            chat(USER, {"role": "assistant", "content": [{"type": "text", "text": " "}]}),
            "empty_assistant",
            "messages[1].content",
        ),
        (chat(USER, {**ANSWER, "weight": 0}), "nothing_to_learn", "messages"),
        (chat(USER, {**ANSWER, "weight": 2}), "invalid_weight", "messages[1].weight"),
        (chat(USER, {**ANSWER, "weight": True}), "invalid_weight", "messages[1].weight"),
        (chat(USER, {**ANSWER, "wieght": 0}), "misspelt_key", "messages[1].wieght"),
        (chat(USER, ANSWER, tool=[TOOL]), "misspelt_key", "tool"),
        ({"mesages": [USER, ANSWER]}, "misspelt_key", "mesages"),
        (chat(USER, RESULT, ANSWER), "unknown_tool_call", "messages[1].tool_call_id"),
        (chat(USER, CALLING, {"role": "tool", "content": "x"}, ANSWER), "missing_field", "messages[2].tool_call_id"),
        (chat(USER, {"role": "assistant", "tool_calls": []}), "empty_assistant", "messages[1].content"),
        (chat(USER, {"role": "assistant", "refusal": " "}), "empty_assistant", "messages[1].content"),
        (
            chat(USER, {"role": "assistant", "tool_calls": [CALL, CALL]}),
            "invalid_tool_call",
            "messages[1].tool_calls[1].id",
        ),
        (
            chat(USER, {"role": "assistant", "tool_calls": [call(type="code")]}),
            "invalid_tool_call",
            "messages[1].tool_calls[0].type",
        ),
        (
            chat(USER, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": "{oops"})]}),
            "invalid_arguments",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            chat(USER, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": "[" * 100_000})]}),
            "invalid_arguments",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            chat(USER, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": {}})]}),
            "wrong_type",
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            chat(USER, {"role": "assistant", "tool_calls": [call(function={"arguments": "{}"})]}),
            "missing_field",
            "messages[1].tool_calls[0].function.name",
        ),
        (chat(USER, CALLING, {"role": "function", "content": "x"}, ANSWER), "missing_field", "messages[2].name"),
        (chat(USER, ANSWER, tools={}), "wrong_type", "tools"),
        (chat(USER, ANSWER, tools=[{"type": "function"}]), "missing_field", "tools[0].function"),
        (chat(USER, ANSWER, tools=[{"type": "web"}]), "invalid_tool", "tools[0].type"),
        (
            chat(USER, ANSWER, tools=[{"type": "function", "function": {"name": "f", "parameters": []}}]),
            "wrong_type",
            "tools[0].function.parameters",
        ),
        (
            chat(USER, ANSWER, functions=[{"name": "f", "parameters": {"type": "string"}}]),
            "invalid_tool",
            "functions[0].parameters.type",
        ),
        (chat(USER, ANSWER, parallel_tool_calls="no"), "wrong_type", "parallel_tool_calls"),
        ({"prompt": "x"}, "missing_field", "completion"),
        ({"prompt": ["x"], "completion": "y"}, "wrong_type", "prompt"),
        ({"prompt": "x", "completion": "\n"}, "empty_completion", "completion"),
        ({**preferences(1)[0], "input": [USER]}, "wrong_type", "input"),
        ({**preferences(1)[0], "input": {}}, "missing_field", "input.messages"),
        (
            {**preferences(1)[0], "input": {"messages": [USER, ANSWER]}},
            "last_message_is_assistant",
            "input.messages[1].role",
        ),
        ({**preferences(1)[0], "preferred_completion": [ANSWER, ANSWER]}, "wrong_type", "preferred_completion"),
        ({**preferences(1)[0], "non_preferred_completion": [USER]}, "invalid_role", "non_preferred_completion[0].role"),
        ({key: value for key, value in preferences(1)[0].items() if key != "input"}, "missing_field", "input"),
    ],
)
def test_bad_rows_are_named_by_code_and_field(row: dict[str, Any], code: str, field: str, run: Examine) -> None:
    first = run([row]).report.training.problems[0]
    assert (first.line, first.code, first.field, first.severity) == (1, code, field, "error")
    assert first.message and first.remedy


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("look!", "Expecting value at column 1"),
        ("[1]", "is a list"),
        ('{"a": "\\ud800"}', "a holds half of"),
        ('{"a": {"b": NaN}}', "a.b is NaN"),
        ('{"a": ' + "[" * 500 + "]" * 500 + "}", "nested more than 64"),
    ],
)
def test_arguments_are_json_that_a_template_can_write(arguments: str, says: str, run: Examine) -> None:
    row = chat(USER, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": arguments})]})
    (problem, *_) = run([row]).report.training.problems
    assert (problem.code, problem.field) == ("invalid_arguments", "messages[1].tool_calls[0].function.arguments")
    assert says in problem.message


@pytest.mark.parametrize(
    ("row", "code", "field"),
    [
        (chat(USER, ANSWER, id=7), "unknown_key", "id"),
        (chat({**USER, "weight": 0}, ANSWER), "ignored_key", "messages[0].weight"),
        (chat({"role": "system", "content": ""}, USER, ANSWER), "empty_content", "messages[0].content"),
        (chat(USER, CALLING, USER, ANSWER), "unanswered_tool_call", "messages[1].tool_calls[0]"),
        (chat(USER, CALLING, tools=[{**TOOL, "function": {"name": "see"}}]), "unknown_tool", "messages[1]"),
    ],
)
def test_harmless_oddities_are_warnings(row: dict[str, Any], code: str, field: str, run: Examine) -> None:
    report = run([row, *chats(10)]).report
    assert [(problem.line, problem.code, problem.field) for problem in report.training.problems] == [(1, code, field)]
    assert report.training.warning_counts == {code: 1}
    assert report.ok and report.training.usable == 11


@pytest.mark.parametrize(
    "row",
    [
        chat(
            USER, ANSWER, prompt_id="1", message="x", tool="zendesk", completions=[{"model": "m"}], metadata={"a": "b"}
        ),
        chat({**USER, "id": 7, "names": ["x"], "name": "Ann"}, {**ANSWER, "created": 1.5}),
        {"prompt": "a", "completion": "b", "prompt_id": "1", "completions": ["c"], "prompts": "d"},
        {
            "input": {"messages": [USER]},
            "preferred_completion": [ANSWER],
            "non_preferred_completion": [{**ANSWER, "content": "worse"}],
            "preferred_completions": 3,
            "inputs": "x",
            "prompt_id": "1",
        },
    ],
)
def test_columns_beside_the_known_ones_never_make_a_row_unreadable(row: dict[str, Any], run: Examine) -> None:
    report = run([row]).report.training
    assert [problem.code for problem in report.problems if problem.severity == "error"] == ["too_few_examples"]


@pytest.mark.parametrize(
    ("row", "looks_like"),
    [
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference row of another tool"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "ShareGPT"),
        ({"instruction": "a", "input": "", "output": "b"}, "Alpaca"),
        ({"question": "a", "answer": "b"}, "a question and its answer"),
    ],
)
def test_rows_of_other_tools_are_recognised(row: dict[str, Any], looks_like: str, run: Examine) -> None:
    first = run([row]).report.training.problems[0]
    assert first.code == "unknown_format"
    assert looks_like in first.message
    assert "tunestream mine" in first.remedy


def test_messages_never_quote_the_text_of_a_conversation(run: Examine) -> None:
    secret = "ada@example.com"
    rows = [
        chat({"role": "user", "content": {"text": secret}}, ANSWER),
        chat(USER, {"role": "assistant", "tool_calls": [call(function={"name": "f", "arguments": secret})]}),
        json.dumps(chat({"role": "user", "content": secret}))[:-5].encode(),
    ]
    report = run(rows).report
    assert report.training.errors >= 3
    assert secret not in report.model_dump_json()
