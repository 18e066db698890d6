"""The scores of one answer. `per_example` collects the metrics that are averaged over examples: those of
`domain/scoring`, and here those that need a library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.evaluator.domain.kinds import Kinds
from services.evaluator.domain.replies import Reply
from services.evaluator.domain.scoring.accuracy import accuracy
from services.evaluator.domain.scoring.exact_match import exact_match
from services.evaluator.domain.scoring.tool_calls import tool_calls
from services.evaluator.scoring.overlap import overlap
from services.evaluator.scoring.sql import sql
from services.evaluator.scoring.structured import structured
from shared.scoring.rouge import rouge


def per_example(
    expected: Reply, given: Reply, kinds: Kinds, schema: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Every score of one answer, each from 0 to 1: of all answers those of text, `accuracy` only of labels,
    `tool_call_*` only of tool calls, `json_*` only of structured output, `sql_*` only of SQL. `schema`: the JSON schema
    that structured output should match."""
    reference, answer = expected.text, given.text
    scores = {
        **rouge(reference, answer),
        **overlap(reference, answer),
        "exact_match": exact_match(reference, answer),
    }
    if kinds.labels:
        scores["accuracy"] = accuracy(reference, answer)
    if kinds.calls:
        scores |= tool_calls(expected.calls, given.calls)
    if kinds.structured:
        scores |= structured(reference, answer, schema)
    if kinds.sql:
        scores |= sql(reference, answer)
    return scores
