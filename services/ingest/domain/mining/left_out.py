"""Why a row becomes no example."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "filter", "unfit", "no_question", "no_answer", "no_choice", "bad_answer", "no_verdict", "cut_answer", "no_group",
    "unknown_role", "tool_calls", "not_messages", "parts", "broken", "cells", "not_text", "too_large",
]  # fmt: skip
WORDS: dict[Reason, str] = {
    "filter": "do not meet the filter",
    "unfit": "hold something that the filter cannot compare",
    "no_question": "ask nothing",
    "no_answer": "have no answer",
    "no_choice": "prefer neither answer",
    "bad_answer": "have an answer that is marked as a bad one",
    "no_verdict": "do not say whether their answer is a good one",
    "cut_answer": "have an answer that was cut off",
    "no_group": "do not say which conversation they belong to",
    "unknown_role": "have a speaker whose role is not known",
    "tool_calls": "have calls and results of tools that do not fit together",
    "not_messages": "hold no list of messages",
    "parts": "say something that is no text",
    "broken": "are not valid JSON",
    "cells": "have more cells than the header",
    "not_text": "hold bytes that are no text in this encoding",
    "too_large": "are too large",
}
"""What follows the number of rows in a report."""


class LeftOut(Exception):
    """This row becomes no example. `detail` says what it was in this row."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{WORDS[reason]}: {detail}" if detail else WORDS[reason])
        self.reason = reason
        self.detail = detail
