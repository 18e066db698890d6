"""What is found of templates that do what families do: which messages they know, how they think, how they call."""

from __future__ import annotations

from typing import Any

import pytest

from shared.base import Knows
from shared.base.probes import Found, probe
from tests.support.data.micro_base import CHATML, make_tokenizer

LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"


def calling(written: str, answer: str = "{{ m.content }}") -> str:
    """A template with tools, which writes one call so."""
    call = "{% for c in m.tool_calls or [] %}" + written + "{% endfor %}"
    return TOOLS + LOOP.replace("{{ m.content }}", answer + call) + HEADER


# as Hermes 2 Pro and Qwen 2.5
HERMES = calling("<tool_call>\n{{ c.function | tojson }}\n</tool_call>")
# as Qwen 3: thoughts can be switched off, and the last answer is written with an empty thought
HYBRID = (
    calling("<tool_call>{{ c.function | tojson }}</tool_call>").replace(
        "{{ m.content }}",
        "{% if m.role == 'assistant' and loop.last %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}"
        "{{ m.content }}",
    )
    + "{% if add_generation_prompt and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
# as R1: the prompt opens a thought, and answers are written without theirs
R1 = LOOP + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
# as DeepSeek V3.1: no thoughts unless a request asks for them
ON_REQUEST = LOOP.replace("\n{{ m.content", "\n{{ '</think>' if m.role == 'assistant' }}{{ m.content")
ON_REQUEST += HEADER + "{% if add_generation_prompt %}{{ '<think>' if thinking else '</think>' }}{% endif %}"
# as SmolLM3: a tuned model that answers without thoughts writes no mark
UNMARKED = LOOP + HEADER + "{% if enable_thinking is false %}{{ '<think></think>' }}{% endif %}"
# as Mistral 0.3: strict about turns, the system text goes into the user's
MISTRAL = (
    "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}\n\n{% endif %}"
    "{% if tools %}{{ tools | tojson }}{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'tool' %}[R]{{ m.content }}[/R]{% elif m.tool_calls %}[TOOL_CALLS][{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}{{ c.function | tojson }}"
    "{% endfor %}]<|im_end|>{% elif m.role == 'assistant' %}{{ m.content }}<|im_end|>"
    "{% else %}{{ raise_exception('unknown role') }}{% endif %}{% endfor %}"
)
# as Llama 3.1: JSON without a mark
LLAMA = calling('{{ \'{"name": "\' + c.function.name + \'", "parameters": \' }}{{ c.function.arguments | tojson }}}')
# as Gemma 2: refuses system messages, and knows no tools
GEMMA = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('alternate') }}"
    "{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}" + HEADER
)
TOKENS = ("<think>", "</think>", "[TOOL_CALLS]", "<|python_tag|>")


def found(template: str, *, tokens: tuple[str, ...] = TOKENS, model_type: str = "llama", **kwargs: Any) -> Found:
    tokenizer = make_tokenizer(template)
    tokenizer.add_tokens(list(tokens), special_tokens=True)
    return probe(tokenizer, (tokenizer.eos_token_id,), model_type, kwargs)


def test_a_template_with_all_roles_knows_them() -> None:
    assert found(HERMES).knows == Knows(system=True, tools=True, tool_calls=True, several_calls=True, tool_results=True)


def test_a_template_that_drops_tools_does_not_know_them() -> None:
    assert found(LOOP + HEADER) == Found(Knows(system=True), "none", None, None)


def test_refusals_of_a_template_are_what_it_does_not_know() -> None:
    assert found(GEMMA).knows == Knows()
    assert found(MISTRAL).knows == Knows(
        system=True, tools=True, tool_calls=True, several_calls=True, tool_results=True
    )


def test_the_developer_role_is_known_where_a_template_names_it() -> None:
    named = LOOP.replace("{{ m.role }}", "{{ 'system' if m.role == 'developer' else m.role }}")
    assert found(named + HEADER).knows.developer
    assert not found(LOOP + HEADER).knows.developer


def test_a_template_for_one_call_per_answer() -> None:
    one = HERMES.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]")
    assert (found(one).knows.tool_calls, found(one).knows.several_calls) == (True, False)


@pytest.mark.parametrize(
    ("template", "parser"),
    [
        (HERMES, "hermes"),
        (CHATML, "hermes"),
        (MISTRAL, "mistral"),
        (LLAMA, "llama3_json"),
        (
            calling(
                "<tool_call>\n<function={{ c.function.name }}>\n{% for k, v in c.function.arguments.items() %}"
                "<parameter={{ k }}>\n{{ v }}\n</parameter>\n{% endfor %}</function>\n</tool_call>"
            ),
            "qwen3_coder",
        ),
        (calling("CALL {{ c.function | tojson }}"), None),  # no parser reads that
    ],
)  # fmt: skip
def test_the_parser_for_calls_is_that_of_the_marks_that_the_template_writes(template: str, parser: str | None) -> None:
    assert found(template).tool_call_parser == parser


def test_a_parser_that_needs_a_token_is_only_named_where_it_is_one() -> None:
    """vLLM would not start."""
    assert found(MISTRAL, tokens=()).tool_call_parser is None
    assert found(R1, tokens=()).reasoning_parser is None


def test_a_base_without_thoughts() -> None:
    assert (found(HERMES).reasoning, found(HERMES).reasoning_parser) == ("none", None)


def test_thoughts_that_a_request_can_switch_off() -> None:
    assert (found(HYBRID).reasoning, found(HYBRID).reasoning_parser) == ("switchable", "qwen3")


def test_thoughts_that_the_prompt_opens() -> None:
    assert (found(R1).reasoning, found(R1).reasoning_parser) == ("always", "deepseek_r1")


def test_thoughts_that_are_closed_unless_a_request_asks_for_them() -> None:
    """A parser that expects thoughts would take the whole answer for one."""
    assert (found(ON_REQUEST).reasoning, found(ON_REQUEST).reasoning_parser) == ("switchable", "deepseek_v3")


def test_what_is_set_for_the_template_is_given_to_it() -> None:
    assert found(ON_REQUEST, thinking=True).reasoning_parser != "deepseek_v3"
    assert found(HYBRID, enable_thinking=False).reasoning_parser == "deepseek_v3"


def test_no_parser_where_a_plain_answer_would_be_taken_for_a_thought() -> None:
    assert (found(UNMARKED).reasoning, found(UNMARKED).reasoning_parser) == ("switchable", None)
