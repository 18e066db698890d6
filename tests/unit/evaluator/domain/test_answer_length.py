"""Answers get the room that the references need."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.evaluator.domain.answer_length import FEWEST, Lengths, Limit, answer_limit, lengths_of
from services.evaluator.domain.examples import Example, parse_row


def chat(answer: dict[str, Any]) -> Example:
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", **answer}]}
    return parse_row(json.dumps(row), 1)


def auto(*examples: Example, tokens: int = 0) -> int:
    return answer_limit("auto", lengths_of(examples, tokens)).tokens


def test_the_longest_reference_fits_with_head_room() -> None:
    long, short = chat({"content": "word " * 400}), chat({"content": "yes"})
    limit = answer_limit("auto", lengths_of([short, long, short], tokens=600))
    # 2,000 of 2,021 bytes (three times "hello", twice "yes"), and 600 tokens for all: 593.7 tokens
    assert limit.tokens == pytest.approx(594 * 1.5 + 32, abs=3)
    assert "longest reference of the test split has about 594 tokens" in limit.reason


def test_labels_get_the_floor() -> None:
    assert auto(chat({"content": "refund"}), tokens=30) == FEWEST


def test_thoughts_and_tool_calls_of_a_reference_need_room_too() -> None:
    thinker = chat({"content": "yes", "reasoning_content": "step by step " * 200})
    assert auto(thinker) > 2_600 * 0.25
    assert auto(chat({"content": "<think>" + "step by step " * 200 + "</think>yes"})) > 2_600 * 0.25
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": json.dumps({"text": "word " * 400})}}
    assert auto(chat({"tool_calls": [call]})) > 2_000 * 0.25


def test_other_scripts_get_as_many_tokens_as_their_tokenizer_makes_of_them() -> None:
    chinese = chat({"content": "退款" * 100})  # 600 bytes
    assert auto(chinese, tokens=400) > 400 * 1.4
    assert auto(chinese, tokens=10**6) <= 600 * 1.5 + 32  # at most a token per byte is believed


def test_a_number_that_the_job_names_is_used() -> None:
    limit = answer_limit(7, lengths_of([chat({"content": "word " * 400})], tokens=600))
    assert limit == Limit(tokens=7, reason="evaluation.max_tokens names it")


def test_without_references_there_is_a_usual_limit() -> None:
    assert answer_limit("auto", Lengths()).tokens == 256
    assert answer_limit("auto", lengths_of([chat({"content": ""})], 0)).tokens == 256
