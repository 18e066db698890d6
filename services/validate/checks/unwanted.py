"""Rows that the file itself marks as bad answers, as the unpaired preferences of KTO do (Ethayarajh et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding

_MARKS = ("label", "accepted", "approved", "thumbs_up", "feedback", "rating", "thumb")
_BAD = frozenset({"thumbs_down", "thumbsdown", "down", "negative", "dislike", "disliked", "rejected", "bad"})


class Unwanted(Check):
    """Leaves out rows with an answer that nobody wants: the model would learn it like a good one."""

    name = "unwanted"
    by_row = False
    drops: ClassVar = {"unwanted_answer": "are marked as bad answers"}

    def row(self, row: Row) -> Iterator[Finding]:
        if row.plain or row.format == "preference":
            return
        for mark in _MARKS:
            said = row.value.get(mark)
            if said is False or (isinstance(said, str) and said.strip().casefold() in _BAD):
                text = f"marks the answer as a bad one ({said!r}), which training would teach"
                remedy = (
                    "leave the row out, or make pairs of good and bad answers "
                    "(input, preferred_completion, non_preferred_completion)"
                )
                yield Finding("unwanted_answer", mark, text, remedy, "warning", drops=True)
                return
