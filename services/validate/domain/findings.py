"""What is wrong with a dataset: findings in a row, problems of a file, and their counts and wording."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from shared.events import FrozenModel

Severity = Literal["error", "warning"]

# Warnings have a list of their own, and a shorter one: a million rows with a harmless extra key must not push the one
# error that matters out of the report. All of them are counted.
MAX_WARNINGS = 100
MAX_OF_A_CODE = 50
"""Of these, so many may be of one code, so that none hides all others."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with a row. `field` is a path (`messages[2].role`), empty for the row itself.

    `drops`: the row is dropped, that is, left out of the splits. Only a warning may drop its row; an error fails the
    whole file.
    """

    code: str
    field: str
    message: str
    remedy: str
    severity: Severity = "error"
    drops: bool = False


OnFinding = Callable[[int | None, Finding], None]
"""Is told of a finding and its line; None: it is of the whole file."""


class Problem(FrozenModel):
    """A finding with its place. `line` counts from 1; None means the whole file."""

    line: int | None
    field: str
    code: str
    message: str
    remedy: str
    severity: Severity

    def __str__(self) -> str:
        """`Line 12, messages[2].role: 'role' is missing; add one of system, user, assistant, tool`"""
        place = ", ".join(part for part in (f"Line {self.line}" if self.line else "", self.field) if part)
        return f"{place}: {self.message}; {self.remedy}" if place else f"{self.message}; {self.remedy}"


@dataclass
class Problems:
    """Counts every problem by code and keeps the first `limit` errors and the first warnings. `on_finding` is told of
    all of them."""

    limit: int
    on_finding: OnFinding = lambda line, finding: None
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    error_counts: Counter[str] = field(default_factory=Counter)
    warning_counts: Counter[str] = field(default_factory=Counter)

    def add(self, line: int | None, finding: Finding) -> None:
        """Count a finding; keep it if there is room."""
        self.on_finding(line, finding)
        if finding.severity == "error":
            self.error_counts[finding.code] += 1
            kept, room = self.errors, self.limit
        else:
            self.warning_counts[finding.code] += 1
            kept, room = self.warnings, min(self.limit, MAX_WARNINGS)
            if self.warning_counts[finding.code] > MAX_OF_A_CODE:
                return
        if len(kept) < room:
            kept.append(problem(line, finding))

    def add_run(self, first: int, count: int, warning: Finding) -> None:
        """Count the same warning for `count` lines, the first of which is `first`. It takes no longer for more."""
        shown = min(count, self.limit, MAX_WARNINGS)
        for line in range(first, first + shown):
            self.add(line, warning)
        self.warning_counts[warning.code] += count - shown


def problem(line: int | None, finding: Finding) -> Problem:
    return Problem(
        line=line,
        field=finding.field,
        code=finding.code,
        message=finding.message,
        remedy=finding.remedy,
        severity=finding.severity,
    )


def missing(at: str, name: str, remedy: str) -> Finding:
    """The finding for an object at the path `at` that lacks the key `name`."""
    return Finding("missing_field", join(at, name), f"'{name}' is missing", remedy)


def wrong_type(at: str, value: Any, wanted: str) -> Finding:
    """The finding for a value of the wrong type. `wanted` is the right type in words."""
    return Finding("wrong_type", at, f"is {json_type(value)}", f"make it {wanted}")


_LISTS = frozenset({"messages", "tools", "functions", "tool_calls", "preferred_completion", "non_preferred_completion"})
"""Keys whose value is a list: a column `tool` that holds a word is another column."""


def unknown_keys(value: dict[str, Any], known: frozenset[str], at: str) -> list[Finding]:
    """Findings for unknown keys. Such a key is ignored with a warning; if it looks like a misspelt key that the object
    lacks, it is an error. Beside `prompt`, `prompt_id` is just another column."""
    findings = []
    lacking = known - value.keys()
    for key in sorted(value.keys() - known):
        close = get_close_matches(key.lower(), lacking, n=1, cutoff=0.8)
        if close and (close[0] not in _LISTS or isinstance(value[key], list)):
            findings.append(
                Finding("misspelt_key", join(at, short(key)), "is not a known key", f"did you mean '{close[0]}'?")
            )
        else:
            remedy = "remove it, or leave it if that is what you want"
            findings.append(
                Finding("unknown_key", join(at, short(key)), "is not a known key and is ignored", remedy, "warning")
            )
    return findings


def join(at: str, name: str) -> str:
    """The path of the key `name` in the object at `at`."""
    return f"{at}.{name}" if at else name


def short(text: str, limit: int = 40) -> str:
    """A key or a word from the user's file, fit for a message: printable and cut to `limit` characters."""
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return json.dumps(cut, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()[1:-1]


def json_type(value: Any) -> str:
    """The JSON name of a value's type, with its article: `a number`."""
    if value is None:
        return "null"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a string", list: "a list"}
    return names.get(type(value), "an object")
