"""The parsers that profiles name exist in vLLM, and its own code reads with them what templates write."""

from __future__ import annotations

import pytest
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager

from shared.base import parsers
from shared.base.probes import probe
from tests.families.parsers import read
from tests.support.data.micro_base import CHATML, make_tokenizer
from tests.unit.shared.base.test_probes import HERMES, HYBRID, LLAMA, MISTRAL, ON_REQUEST, R1, TOKENS

pytestmark = pytest.mark.torch  # vLLM imports torch


def test_every_parser_that_can_be_named_is_one_of_vllms() -> None:
    assert {rule.parser for rule in parsers.RULES} <= set(ToolParserManager.list_registered())
    assert set(parsers.REASONING) <= set(ReasoningParserManager.list_registered())


@pytest.mark.parametrize(
    ("template", "kinds"),
    [
        (HERMES, {"call", "calls", "text and call"}),
        (CHATML, {"call", "calls", "text and call"}),
        (HYBRID, {"plain", "thought", "call", "calls", "text and call"}),
        (R1, {"plain", "thought"}),
        (ON_REQUEST, {"plain"}),
        (MISTRAL, {"call"}),
        (LLAMA, {"call"}),
    ],
)
def test_vllm_reads_what_the_template_writes(template: str, kinds: set[str]) -> None:
    tokenizer = make_tokenizer(template)
    tokenizer.add_tokens(list(TOKENS), special_tokens=True)
    stops = (tokenizer.eos_token_id,)
    results = read(tokenizer, stops, probe(tokenizer, stops, "llama", {}))
    assert kinds <= results.keys()
    assert {kind: results[kind] for kind in kinds} == dict.fromkeys(kinds)
