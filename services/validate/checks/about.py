"""What the whole file shows: labels out of balance, answers that hardly vary, languages that do not fit, outliers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from services.validate.checks.base import Check, Tally
from services.validate.domain.findings import Finding, short
from services.validate.domain.survey.facts import Facts
from services.validate.domain.survey.flaws import FLAWS, is_usual

RARE_LABEL = 10
"""Rows that a label needs, to be learned and to be in the test split."""
IMBALANCE = 20
"""The most frequent label may have so many times the rows of the rarest."""
FEW_WORDS = 0.02
"""Of the pairs of words of the answers, the share of different ones; a large dataset of support answers has 0.2."""
MANY_REFUSALS = 0.05
MANY_NEAR = 0.2
NAMED = 5


class About(Check):
    """Findings about the whole file, from the figures of the survey."""

    name = "about"

    def file(self, tally: Tally) -> Iterable[Finding]:
        surveyed = self.context.surveyed
        return () if surveyed is None or self.context.role != "training" else _findings(surveyed.facts)


def _findings(facts: Facts) -> Iterator[Finding]:
    if facts.labels:
        yield from _labels(facts.labels)
    elif facts.diversity and facts.diversity.sample >= 200 and 0 < facts.diversity.distinct_2 < FEW_WORDS:
        share = facts.diversity.distinct_2
        text = f"The answers hardly vary: {share:.1%} of their pairs of words are different ones"
        yield _warning("low_diversity", text, "add answers in other words, or check for a template that fills them all")
    if facts.rows and facts.near_duplicates.rows >= MANY_NEAR * facts.rows:
        share = facts.near_duplicates.rows / facts.rows
        text = f"{share:.0%} of the rows are nearly the same as an earlier one"
        yield _warning("many_near_duplicates", text, "add different examples, or set checks.near_duplicates to drop")
    if facts.mixed_languages.rows:
        text = f"In {facts.mixed_languages} rows the answer is in another language than the question"
        yield _warning(
            "mixed_languages", text, "leave them if the task is to translate, else answer in the user's language"
        )
    if facts.rows and facts.refusals.rows >= MANY_REFUSALS * facts.rows:
        share = facts.refusals.rows / facts.rows
        text = f"{share:.0%} of the answers refuse, so the model will refuse often"
        yield _warning("many_refusals", text, "set checks.refusals to drop, or write answers")
    for flaw in FLAWS:
        found = facts.flaws.get(flaw.code)
        if found and is_usual(found.rows, facts.rows):
            text = f"{found.rows / facts.rows:.0%} of the rows have this: {flaw.text}"
            yield _warning(f"many_{flaw.code}", text, flaw.remedy)
    for name, outliers in (("long", facts.long_answers), ("short", facts.short_answers)):
        if outliers.rows:
            text = f"{outliers} answers are far {name}er than the others"
            yield _warning(f"{name}_answers", text, "look at them: are they damaged, or of another task?")


def _labels(labels: dict[str, int]) -> Iterator[Finding]:
    ordered = sorted(labels.items(), key=lambda item: (item[1], item[0]))
    if rare := [(name, rows) for name, rows in ordered if rows < RARE_LABEL]:
        named = ", ".join(f"'{short(name)}' {rows}" for name, rows in rare[:NAMED])
        text = f"{len(rare)} of {len(labels)} labels have fewer than {RARE_LABEL} rows ({named})"
        yield _warning("rare_labels", text, "add examples of them, or join them with others")
    (least, few), (most, many) = ordered[0], ordered[-1]
    if many > IMBALANCE * few:
        text = f"The labels are out of balance: '{short(most)}' has {many:,} rows, '{short(least)}' {few:,}"
        yield _warning("label_imbalance", text, "add examples of the rare labels, and look at macro F1")


def _warning(code: str, text: str, remedy: str) -> Finding:
    return Finding(code, "", text, remedy, "warning")
