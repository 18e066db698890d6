"""The scores of one answer, one metric per file. `per_example` collects the metrics that are averaged over examples."""

from __future__ import annotations

from services.evaluator.domain.scoring.accuracy import accuracy
from services.evaluator.domain.scoring.exact_match import exact_match
from services.evaluator.domain.scoring.rouge import rouge

TITLES = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "exact_match": "Exact match",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "stop_share": "Stops by itself",
}


def per_example(reference: str, answer: str, *, as_labels: bool) -> dict[str, float]:
    """Every score of one answer, each from 0 to 1; `accuracy` only if the answers are labels."""
    scores = {**rouge(reference, answer), "exact_match": exact_match(reference, answer)}
    if as_labels:
        scores["accuracy"] = accuracy(reference, answer)
    return scores
