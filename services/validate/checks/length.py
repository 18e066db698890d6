"""Rows longer than the base or the job allows, by the policy `hyperparameters.over_length`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding

OVER_LENGTH = "over_length"


class Length(Check):
    """Rows over `max_length` tokens fail the file, are dropped, or are reported as cut."""

    name = "length"
    drops: ClassVar = {
        OVER_LENGTH: "are longer than max_length",
        "nothing_left_to_learn": "are all prompt within max_length",
    }
    needs_tokens = True
    by_row = False  # plain rows come here only where nothing was tokenized

    def row(self, row: Row) -> Iterator[Finding]:
        limit = self.context.max_length
        if limit is None or row.longest <= limit:
            return
        text = f"has {row.longest} tokens, {limit} are allowed"
        policy = self.context.spec.hyperparameters.over_length
        if policy == "fail":
            remedy = "shorten it, raise max_length, or set over_length to drop or truncate"
            yield Finding(OVER_LENGTH, "", text, remedy)
        elif policy == "drop":
            yield Finding(
                OVER_LENGTH, "", f"{text}: it is left out", "shorten it, or raise max_length", "warning", True
            )
        elif self.context.prompt_tokens and self.context.prompt_tokens(row) >= limit:
            # if it were cut at the limit, only prompt would be left, and the trainer would learn nothing from it
            text += ", and the part to learn begins after them, so it is left out"
            yield Finding("nothing_left_to_learn", "", text, "shorten the prompt, or raise max_length", "warning", True)
        else:
            yield Finding(OVER_LENGTH, "", f"{text}: its end is cut off", "shorten it, or raise max_length", "warning")
