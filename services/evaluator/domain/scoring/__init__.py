"""The scores of one answer that need the standard library only, one metric per file, and what readers call all metrics.
`services/evaluator/scoring` collects the metrics that are averaged over examples."""

from __future__ import annotations

TITLES = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu": "BLEU",
    "chrf": "chrF",
    "exact_match": "Exact match",
    "accuracy": "Accuracy",
    "macro_f1": "Macro F1",
    "tool_call_valid": "Valid calls",
    "tool_call_name": "Right functions",
    "tool_call_arguments": "Right calls",
    "json_valid": "Valid JSON",
    "json_schema": "Matches schema",
    "json_fields": "Right fields",
    "sql_valid": "Valid SQL",
    "sql_match": "Right SQL",
    "stop_share": "Stops by itself",
}
