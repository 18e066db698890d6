"""The edge prompts: named, distinct, and of a length that every evaluation can afford."""

from __future__ import annotations

import re

import pytest

from services.evaluator.domain.questions.edge_prompts import EDGE_PROMPTS, EdgePrompt

NAMES = [edge.name for edge in EDGE_PROMPTS]


def test_each_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("edge", EDGE_PROMPTS, ids=NAMES)
def test_none_fills_the_context_of_a_usual_base(edge: EdgePrompt) -> None:
    """Both models read each of them, and on a CPU one of 6,600 tokens cost minutes. A usual tokenizer
    has a token for each of these words."""
    words = re.findall(r"\w+|[^\w\s]", edge.text)
    assert len(words) <= 2048
