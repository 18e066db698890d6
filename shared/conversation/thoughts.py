"""The marks around thoughts, for all who train, look for or read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
