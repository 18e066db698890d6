"""What the report of a dataset says of its rows, in lines of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from services.validate.domain.survey.facts import Facts

SHOWN = 6
_TASKS = {"labels": "labels", "structured": "structured output", "tool_calls": "tool calls", "text": "free text"}


def lines(facts: Facts) -> dict[str, str]:
    """Names and texts. What is not there is left out, except for what people look for."""
    found = {"task": _TASKS[facts.task]}
    if facts.labels:
        found["labels"] = f"{len(facts.labels)}: {_counts(facts.labels)}"
    if facts.languages:
        found["languages"] = _counts(facts.languages)
    if facts.diversity:
        said = facts.diversity
        of = "" if said.sample == facts.rows else f" (a sample of {said.sample:,} rows)"
        found["diversity"] = (
            f"{said.vocabulary:,} different words; of the answers' words {said.distinct_1:.1%} are different, "
            f"of their pairs {said.distinct_2:.1%}{of}"
        )
    found["near-duplicates"] = str(facts.near_duplicates) if facts.near_duplicates.rows else "none"
    found["personal data"] = str(facts.personal_data) if facts.personal_data.rows else "none"
    found["secrets"] = str(facts.secrets) if facts.secrets.rows else "none"
    found |= {code.replace("_", " "): str(lines) for code, lines in facts.flaws.items()}
    for name, found_in in (
        ("refusals", facts.refusals),
        ("other language", facts.mixed_languages),
        ("long answers", facts.long_answers),
        ("short answers", facts.short_answers),
    ):
        if found_in.rows:
            found[name] = str(found_in)
    return found


def _counts(counts: dict[str, int]) -> str:
    """`delivery 40, billing 38 and 3 more`"""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    shown = ", ".join(f"{name} {rows:,}" for name, rows in ordered[:SHOWN])
    more = len(ordered) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
