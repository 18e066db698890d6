"""What a reply of the strong model is worth: its text, or why it is refused."""

from __future__ import annotations

import json
import re
from typing import Any

from shared.conversation.thoughts import parted

_QUOTES = (('"', '"'), ("“", "”"), ("„", "“"), ("«", "»"), ("'", "'"))
_LABEL = re.compile(r"^\**(?:message|user|query|answer|assistant)(?: number)?(?: \d+)?\**\s*:\**\s*", re.IGNORECASE)
_SCORE = re.compile(r"\bscore\W{0,5}([1-5])(?![\d.])|^\s*([1-5])(?:\s*/\s*5)?\s*(?:\W|$)", re.IGNORECASE)


class Refused(Exception):
    """This attempt makes no row. `reason` is one of few, for counting; the text says more."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(detail)
        self.reason = reason


def written(text: str, finish_reason: str | None, what: str) -> str:
    """The text of a query or an answer (`what`), without thoughts and white space around it.

    Raises:
        Refused: there is none, or it cannot be trained on.
    """
    if finish_reason == "content_filter":
        raise Refused("filtered", f"the endpoint's filter stopped the {what}")
    thought = parted(text)
    if finish_reason == "length" or thought.cut:
        raise Refused("cut", f"the {what} has more than max_tokens.{what}")
    plain = thought.answer.strip()
    if not plain:
        raise Refused("empty", f"the {what} is empty")
    if any("\ud800" <= character <= "\udfff" or character == "\0" for character in plain):
        raise Refused("unreadable", f"the {what} holds characters that are no text")
    return plain


def message(plain: str) -> str:
    """A query without the label and the quotes that models like to put around one."""
    text = _LABEL.sub("", plain, count=1).strip() or plain
    for opening, closing in _QUOTES:
        inner = text[1:-1]
        quoted = len(text) > 2 and text[0] == opening and text[-1] == closing
        if quoted and opening not in inner and closing not in inner:
            return inner.strip() or text
    return text


def score(text: str) -> tuple[int, str]:
    """The score of a judge, 1 to 5, and its reason.

    Raises:
        Refused: the reply has no score.
    """
    plain = parted(text).answer.strip()
    for value in _objects(plain):
        found = value.get("score")
        if isinstance(found, str) and found.strip().isdigit():
            found = int(found)
        if isinstance(found, int | float) and not isinstance(found, bool) and found == int(found) and 1 <= found <= 5:
            return int(found), str(value.get("reason") or "")
    if match := _SCORE.search(plain):
        return int(match[1] or match[2]), plain
    raise Refused("not judged", "the judge's reply has no score from 1 to 5")


def _objects(text: str) -> list[dict[str, Any]]:
    """The JSON objects of a text, which may stand in a fence of Markdown."""
    found, place = [], text.find("{")
    while place >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            end = place + 1
        else:
            if isinstance(value, dict):
                found.append(value)
        place = text.find("{", end)
    return found
