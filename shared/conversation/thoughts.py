"""The marks around thoughts, for all who train, look for or read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MARKS = {"<think>": "</think>", "<thinking>": "</thinking>", "<seed:think>": "</seed:think>", "[THINK]": "[/THINK]"}
"""What opens thoughts, and what closes them."""

NO_THOUGHTS = re.compile(r"(<think>\s*</think>|<\|channel>thought\s*<channel\|>)\s*$")
"""An empty thought at the end of a prompt."""

_CLOSINGS = re.compile("|".join(map(re.escape, MARKS.values())))
_ALL = re.compile("|".join(map(re.escape, [*MARKS, *MARKS.values()])))


@dataclass(frozen=True)
class Parted:
    """A text in two parts, without the marks between them; white space is as it was."""

    thoughts: str | None
    """None: the text has none."""
    answer: str
    cut: bool = False
    """The thoughts were opened and not closed, so there is no answer."""
    opened: bool = True
    """False: the text closes thoughts that it did not open, because the opening stood in the prompt."""


def parted(text: str, marks: Mapping[str, str] = MARKS) -> Parted:
    """The thoughts that a text begins with, and what follows them. Without thoughts it is all answer; marks in the
    middle of an answer are a part of it."""
    begun = text.lstrip()
    for opening, closing in marks.items():
        if begun.startswith(opening):
            thoughts, end, answer = begun.removeprefix(opening).partition(closing)
            return Parted(thoughts, answer, cut=not end)
    ends = {text.find(closing): (opening, closing) for opening, closing in marks.items() if closing in text}
    if ends:
        place = min(ends)
        opening, closing = ends[place]
        if opening not in text[:place]:
            return Parted(text[:place], text[place + len(closing) :], opened=False)
    return Parted(None, text)


def after_thoughts(text: str) -> str:
    """What follows the last thoughts of a text, which is what templates keep of an earlier turn."""
    return _CLOSINGS.split(text)[-1]


def pieces(text: str) -> list[str]:
    """The text around all marks."""
    return _ALL.split(text)


def without_inline_thoughts(message: Mapping[str, Any], answer: str) -> dict[str, Any] | None:
    """The message with its inline thoughts in a field of their own, for a template that knows the field and writes a
    second, empty thought beside the inline one; None: there is no second one."""
    content = message.get("content")
    if not isinstance(content, str):
        return None
    for opening, closing in MARKS.items():
        if closing in content and answer.count(closing) > content.count(closing):
            thoughts, said = thoughts_of(message, opening, closing)
            return {**said, "reasoning_content": thoughts}
    return None


def thoughts_of(message: Mapping[str, Any], opening: str, closing: str) -> tuple[str, dict[str, Any]]:
    """The thoughts of an answer, and the answer without them."""
    said = {key: value for key, value in message.items() if key != "reasoning_content"}
    thoughts = str(message.get("reasoning_content") or "")
    content = message.get("content")
    if not thoughts and isinstance(content, str):
        found = parted(content, {opening: closing})
        if found.thoughts is not None and not found.cut:
            thoughts, said["content"] = found.thoughts, found.answer.lstrip("\n")
    return thoughts.strip("\n"), said
