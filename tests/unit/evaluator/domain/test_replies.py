"""Answers are compared as a client sees them: thoughts apart, tool calls as a structure."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.domain.examples import parse_row
from services.evaluator.domain.kinds import Kinds
from services.evaluator.domain.messages import message_text
from services.evaluator.domain.replies import Reply, reply_of, spoken
from services.evaluator.domain.tool_calls import ToolCall, calls_of
from services.evaluator.scoring import per_example


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<think>\n\n</think>\n\nlabel", "label"),
        ("\n<think>\nIs it a refund? Yes.\n</think>\n\nrefund", "refund"),
        ("so it is a refund\n</think>\n\nrefund", "refund"),  # the opening stood in the prompt
        ("<think>cut in the middle of a thou", ""),
        ("[THINK]Is it? Yes.[/THINK]refund", "refund"),
        ("<think></think>", ""),
        ("label", "label"),
        ("Write <think>x</think> around it", "Write <think>x</think> around it"),
        ("", ""),
    ],
)
def test_thoughts_before_an_answer_are_no_part_of_it(text: str, said: str) -> None:
    assert spoken(text) == reply_of(text).text == said


def test_thoughts_that_the_server_parsed_are_no_part_of_the_answer() -> None:
    assert message_text({"content": "label", "reasoning_content": "let me think", "reasoning": "so"}) == "label"


def test_thoughts_of_a_reference_are_not_compared() -> None:
    row = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<think>why</think>\nyes"}]}
    example = parse_row(json.dumps(row), 1)
    assert example.reply().text == "yes"
    assert "why" in example.reference  # the report shows it


def call(name: str, arguments: Any) -> ToolCall:
    return calls_of({"tool_calls": [{"function": {"name": name, "arguments": arguments}}]})[0]


def scores(wanted: list[ToolCall], given: Reply | list[ToolCall]) -> tuple[float, float, float]:
    answer = given if isinstance(given, Reply) else Reply(calls=tuple(given))
    found = per_example(Reply(calls=tuple(wanted)), answer, Kinds(calls=True))
    return found["tool_call_valid"], found["tool_call_name"], found["tool_call_arguments"]


TRACK = call("track", '{"order": 7, "fast": true, "where": {"lat": 1.50, "lon": 2}}')


@pytest.mark.parametrize(
    "arguments",
    [
        '{"where":{"lon":2.0,"lat":1.5},"fast":true,"order":7.0}',
        {"fast": True, "order": 7, "where": {"lat": 1.5, "lon": 2}},
        '{"order": 70e-1, "fast": true, "where": {"lat": 15e-1, "lon": 2}}',
    ],
)
def test_the_spelling_of_arguments_does_not_matter(arguments: Any) -> None:
    assert scores([TRACK], [call("track", arguments)]) == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([call("track", '{"order": 8}')], (1.0, 1.0, 0.0)),
        ([call("track", '{"order": 7, "fast": 1, "where": {"lat": 1.5, "lon": 2}}')], (1.0, 1.0, 0.0)),  # 1 is not true
        ([call("refund", "{}")], (1.0, 0.0, 0.0)),
        ([call("track", '{"order": 7')], (0.0, 1.0, 0.0)),
        ([call("track", "[7]")], (0.0, 1.0, 0.0)),
        ([call("", "{}")], (0.0, 0.0, 0.0)),
        ([TRACK, TRACK], (1.0, 0.0, 0.0)),
        ([], (0.0, 0.0, 0.0)),
    ],
)
def test_valid_name_and_arguments_are_scored_apart(given: list[ToolCall], expected: tuple[float, float, float]) -> None:
    assert scores([TRACK], given) == expected


def test_the_order_of_parallel_calls_does_not_matter() -> None:
    other = call("track", '{"order": 8}')
    assert scores([TRACK, other], [other, TRACK]) == (1.0, 1.0, 1.0)


def test_where_no_call_is_wanted_none_is_right() -> None:
    assert scores([], []) == (1.0, 1.0, 1.0)
    assert scores([], [TRACK]) == (0.0, 0.0, 0.0)


def test_a_call_without_arguments_is_one_with_none() -> None:
    assert scores([call("ping", "{}")], [call("ping", None)]) == scores([call("ping", "")], [call("ping", {})])


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "track", "arguments": '
        '{"fast": true, "order": 7, "where": {"lon": 2, "lat": 1.5}}}\n</tool_call>',
        '<think>\n\n</think>\n\n<tool_call>{"arguments": {"order": 7, "fast": true, "where": {"lat": 1.5, "lon": 2}}, '
        '"name": "track"}',
    ],
)
def test_calls_that_the_server_left_in_the_text_are_read_from_it(text: str) -> None:
    reply = reply_of(text)
    assert scores([TRACK], reply) == (1.0, 1.0, 1.0)
    assert reply.text == str(TRACK)  # as the reference is written, so that the text metrics compare alike


def test_text_beside_written_calls_is_kept() -> None:
    reply = reply_of('One moment.\n<tool_call>{"name": "f", "arguments": {}}</tool_call>')
    assert (reply.text, reply.calls) == ("One moment.\nf({})", (call("f", "{}"),))


@pytest.mark.parametrize(
    "body", ["{", "[1]", '"x"', "", '{"name": 5}', '{"name": "f", "arguments": "no"}', "[" * 99_999]
)
def test_a_written_call_that_is_none_is_invalid(body: str) -> None:
    found = reply_of(f"<tool_call>{body}</tool_call>").calls
    assert len(found) == 1 and not found[0].valid


def test_half_an_emoji_in_a_written_call_can_be_written_to_a_file() -> None:
    found = reply_of('<tool_call>{"name": "f", "arguments": {"a": "\\ud83d"}}</tool_call>').calls
    assert found[0].model_dump_json()
