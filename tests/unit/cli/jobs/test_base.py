"""What a user reads of a base."""

from __future__ import annotations

import pytest

from cli.jobs.base import caveats, words
from shared.base import BaseProfile, Knows

ALL = Knows(system=True, tools=True, tool_calls=True, several_calls=True, tool_results=True)
THINKER = BaseProfile(
    digest="a" * 64,
    architecture="Qwen3ForCausalLM",
    template_digest="t",
    content_format="string",
    knows=ALL,
    reasoning="switchable",
    reasoning_parser="qwen3",
    tool_call_parser="hermes",
    stop_tokens=("<|im_end|>", "<|endoftext|>"),
    context=40960,
    sampling={"temperature": 0.6, "top_p": 0.95},
)


def changed(**fields: object) -> BaseProfile:
    return THINKER.model_copy(update=fields)


def test_a_base_in_plain_words() -> None:
    assert words(THINKER) == {
        "architecture": "Qwen3ForCausalLM",
        "thoughts": "switchable (parser qwen3)",
        "tools": "yes (parser hermes)",
        "context": "40,960 tokens",
        "stops at": "<|im_end|>, <|endoftext|>",
        "sampling defaults": "temperature 0.6, top_p 0.95",
        "profile": "aaaaaaaaaaaa",
    }
    assert caveats(THINKER) == []


def test_what_is_set_for_the_template_is_shown() -> None:
    assert words(changed(chat_template_kwargs={"enable_thinking": False}))["template is given"] == (
        '{"enable_thinking": false}'
    )


@pytest.mark.parametrize(
    ("fields", "caveat"),
    [
        ({"template_digest": None}, "no chat template: chat rows"),
        ({"knows": Knows(system=True)}, "no tools: rows with tools are refused"),
        ({"knows": Knows(system=True, tools=True)}, "no calls: rows with calls are refused"),
        ({"knows": ALL.model_copy(update={"system": False})}, "no system messages"),
        ({"knows": ALL.model_copy(update={"several_calls": False})}, "one call per answer"),
        ({"tool_call_parser": None}, "the endpoint refuses requests with tools"),
        ({"reasoning_parser": None}, "no parser for its thoughts"),
    ],
)
def test_what_will_not_work_is_said(fields: dict[str, object], caveat: str) -> None:
    [said] = caveats(changed(**fields))
    assert caveat in said
