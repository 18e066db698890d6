"""Rows of the completion format: `{"prompt": "...", "completion": "..."}`."""

from __future__ import annotations

from collections.abc import Iterator

from services.validate.checks.base import Check
from services.validate.domain.content import Row
from services.validate.domain.findings import Finding, missing, unknown_keys, wrong_type

_KEYS = frozenset({"prompt", "completion", "metadata"})


class Completion(Check):
    """The rules of a completion row: both texts are there, and the completion is not empty."""

    name = "completion"
    by_row = False

    def row(self, row: Row) -> Iterator[Finding]:
        if row.format != "completion":
            return
        yield from unknown_keys(row.value, _KEYS, "")
        for key in ("prompt", "completion"):
            if key not in row.value:
                yield missing("", key, f"add the {key}")
            elif not isinstance(row.value[key], str):
                yield wrong_type(key, row.value[key], "a string")
            elif key == "completion" and not row.value[key].strip():
                yield Finding("empty_completion", key, "is empty", "write the text to learn")
