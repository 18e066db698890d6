"""Which of the three training formats of the OpenAI API a row is in."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from services.validate.domain.findings import Finding, missing, short
from shared.events import Method

Format = Literal["chat", "completion", "preference"]

METHOD_OF: dict[Format, Method] = {"chat": "supervised", "completion": "supervised", "preference": "dpo"}

# The keys that show the format of a row. The order matters: the first format with a key in the row wins.
MARKS: dict[Format, tuple[str, ...]] = {
    "chat": ("messages",),
    "preference": ("preferred_completion", "non_preferred_completion"),  # "input" alone is also a key of Alpaca rows
    "completion": ("prompt", "completion"),
}

_ALL_MARKS = [mark for marks in MARKS.values() for mark in marks]

# Formats of other tools, by the keys that give them away.
_FOREIGN: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"chosen", "rejected"}), "a preference row of another tool"),
    (frozenset({"conversations"}), "a ShareGPT row"),
    (frozenset({"instruction", "output"}), "an Alpaca row"),
    (frozenset({"question", "answer"}), "a question and its answer"),
)
_TEXT = "text"

_EXPECTED = (
    'give it "messages" (chat), "prompt" and "completion", or '
    '"input", "preferred_completion" and "non_preferred_completion"; or say in the settings which column is what, '
    "such as `source: {columns: {user: COLUMN, assistant: COLUMN}}`"
)
_MINE = (
    "a dropped file of such rows is converted by itself if its first row is one; `tunestream mine FILE` does it here"
)


def detect(row: dict[str, Any]) -> Format | None:
    """The format of a row by its keys; None: it is in none of them."""
    if "chosen" in row and "rejected" in row:
        return None  # it may also have a "prompt", but it is not a completion row
    return next((name for name, marks in MARKS.items() if any(mark in row for mark in marks)), None)


def unknown_format(row: dict[str, Any], expected: Format | None) -> Finding:
    """The finding for a row that `detect` does not know. `expected` is the format of the rows before it."""
    for keys, what in _FOREIGN:
        if keys <= row.keys():
            return Finding("unknown_format", "", f"looks like {what}", _MINE)
    if _TEXT in row:
        return Finding(
            "unknown_format", "", "looks like plain text", f"say what is asked and what is answered: {_EXPECTED}"
        )
    for key in row:
        if close := get_close_matches(key.lower(), _ALL_MARKS, n=1, cutoff=0.8):
            return Finding("misspelt_key", short(key), "is not a known key", f"did you mean '{close[0]}'?")
    if expected:
        mark = MARKS[expected][0]
        return missing("", mark, f"add it: the file is in the {expected} format")
    return Finding("unknown_format", "", "is in none of the three training formats", _EXPECTED)


def mixed_formats(found: Format, expected: Format, line: int | None) -> Finding:
    """The finding for a row in another format than `expected`.

    `line` is the first row of the file, which decided its format; None: the training file decided it.
    """
    whose = (
        f"the file is in the {expected} format (line {line})" if line else f"the training file is in the {expected} one"
    )
    message = f"this row is in the {found} format, but {whose}"
    return Finding("mixed_formats", MARKS[found][0], message, "keep to one format")
