"""Tool calls: a model learns them, is measured by them, and the official client gets them."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from examples.tasks import tools
from tests.e2e.conftest import StackUnderTest

pytestmark = [pytest.mark.e2e, pytest.mark.proof, pytest.mark.timeout(600)]

ALIAS = "desk"
# two of the three tools, because the tiny base reads all of a prompt's tools in every row
OFFERED = (tools.TOOLS[0], tools.TOOLS[2])
# The tiny base finds a number where it was told one in its chats: "My number is 48213", "It is about 48213". Any other
# sentence it learns to read on some processors and not on others.
ORDER = (
    "It is about {order}. Where is my order?",
    "My number is {order}. Has my order left yet?",
    "Number {order}. When does my order arrive?",
    "My number is {order}. I am still waiting for my order.",
)
CARD = (
    "It is about {card}. What is my gift card worth?",
    "My number is {card}. Is there any money on my gift card?",
    "Number {card}. Can I still use my gift card?",
)
# with nf4, a base of 5.6 million parameters copies hardly any number
SETTINGS = """
hyperparameters: {n_epochs: 3}
lora: {quantization: none}
evaluation: {max_examples: 16, few_shot: 1}
suffix: desk
"""
ASKED = 12


def status(rng: random.Random) -> list[tools.Message]:
    order = tools.an_order(rng)
    return [tools.asks(rng, ORDER, order=order), tools.calls(("order_status", {"order": order}))]


def gift_card(rng: random.Random) -> list[tools.Message]:
    card = tools.a_card(rng)
    return [tools.asks(rng, CARD, card=card), tools.calls(("gift_card", {"card": card}))]


KINDS = (status, gift_card)


def begin(stack: StackUnderTest) -> None:
    stack.drop("desk", tools.jsonl(tools.rows(260, kinds=KINDS, tools=OFFERED)).encode(), SETTINGS)


@pytest.fixture(scope="module")
def job(stack: StackUnderTest) -> dict:
    return stack.ended("desk.jsonl", 420)


@pytest.fixture(scope="module")
def answered(stack: StackUnderTest, job: dict) -> list[tuple[dict[str, Any], Any]]:
    """Of the rows that no split holds, those that the tuned model answers with the right call, and its answers: most,
    as it does not copy every number."""
    rows = list(tools.rows(ASKED, seed=7, kinds=KINDS, tools=OFFERED))
    answers = [ask(stack, row) for row in rows]
    return [
        (row, answer)
        for row, answer in zip(rows, answers, strict=True)
        if calls(answer.choices[0].message.tool_calls) == calls(row["messages"][2]["tool_calls"])
    ]


def ask(stack: StackUnderTest, row: dict[str, Any], **more: Any) -> Any:
    return stack.openai.chat.completions.create(
        model=ALIAS, messages=row["messages"][:2], tools=row["tools"], max_tokens=80, temperature=0, **more
    )


def calls(made: Any) -> list[tuple[str, Any]]:
    """Names and arguments of calls, be they of the client or of a row."""
    functions = [call["function"] if isinstance(call, dict) else call.function.model_dump() for call in made or []]
    return [(function["name"], arguments_of(function)) for function in functions]


def arguments_of(function: dict[str, Any]) -> Any:
    try:
        return json.loads(function["arguments"])
    except ValueError:
        return function["arguments"]


def test_the_tuned_model_makes_more_right_calls_than_its_base(job: dict) -> None:
    assert job["status"] == "succeeded", job["error"]
    evaluation = job["evaluation"]
    assert evaluation["metric"] == "tool_call_arguments"
    assert evaluation["passed"], evaluation["reasons"]
    assert evaluation["delta"]["low"] > 0
    assert evaluation["scores"]["tuned"]["tool_call_name"] > evaluation["scores"]["base"]["tool_call_name"]


def test_the_official_client_gets_the_calls(answered: list[tuple[dict[str, Any], Any]]) -> None:
    assert len(answered) >= ASKED / 2
    for _, answer in answered:
        assert answer.choices[0].finish_reason == "tool_calls"
        assert not answer.choices[0].message.content
        assert answer.usage.completion_tokens > 0


def test_a_stream_brings_the_same_call_and_its_usage(
    stack: StackUnderTest, answered: list[tuple[dict[str, Any], Any]]
) -> None:
    row, whole = answered[0]
    chunks = list(ask(stack, row, stream=True, stream_options={"include_usage": True}))
    deltas = [delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or []]
    name = "".join(delta.function.name or "" for delta in deltas)
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert [(name, json.loads(arguments))] == calls(whole.choices[0].message.tool_calls)
    assert [choice.finish_reason for chunk in chunks for choice in chunk.choices][-1] == "tool_calls"
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_the_client_may_choose(stack: StackUnderTest, answered: list[tuple[dict[str, Any], Any]]) -> None:
    row, _ = answered[0]
    assert not ask(stack, row, tool_choice="none").choices[0].message.tool_calls
    required = calls(ask(stack, row, tool_choice="required").choices[0].message.tool_calls)
    assert required
    assert {name for name, _ in required} <= {tool["function"]["name"] for tool in OFFERED}
    named = ask(stack, row, tool_choice={"type": "function", "function": {"name": "gift_card"}})
    assert [name for name, _ in calls(named.choices[0].message.tool_calls)] == ["gift_card"]
