"""The scores of one answer, one metric per file. `per_example` collects the metrics that are averaged over examples."""

from __future__ import annotations

from services.evaluator.domain.replies import Reply
from services.evaluator.domain.scoring.accuracy import accuracy
from services.evaluator.domain.scoring.exact_match import exact_match
from services.evaluator.domain.scoring.tool_calls import tool_calls
from shared.events import FrozenModel
from shared.scoring.rouge import rouge

TITLES = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "exact_match": "Exact match",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "tool_call_valid": "Valid calls",
    "tool_call_name": "Right functions",
    "tool_call_arguments": "Right calls",
    "stop_share": "Stops by itself",
}


class Kinds(FrozenModel):
    """What the answers are measured as, beside text."""

    labels: bool = False
    calls: bool = False


def per_example(expected: Reply, given: Reply, kinds: Kinds) -> dict[str, float]:
    """Every score of one answer, each from 0 to 1; `accuracy` only of labels, `tool_call_*` only of tool calls."""
    reference, answer = expected.text, given.text
    scores = {**rouge(reference, answer), "exact_match": exact_match(reference, answer)}
    if kinds.labels:
        scores["accuracy"] = accuracy(reference, answer)
    if kinds.calls:
        scores |= tool_calls(expected.calls, given.calls)
    return scores
