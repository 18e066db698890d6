"""Whether the server makes the row's message of the tokens that are trained for it.

Compared are the text, the thoughts and the calls (names, and arguments as JSON values). Not a difference are:

- white space at the edges of a text or of thoughts, which templates and parsers strip
- the form in which Unicode writes a letter (NFC), which tokenizers normalise
- thoughts that are empty on one side and missing on the other
- thoughts that a server without a reasoning parser leaves in the text
- the ids of calls, which the server makes up
- text parts that a template writes one after the other, or on lines of their own
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from services.validate.domain.findings import short
from services.validate.domain.served.comparison import Difference, Given
from services.validate.domain.served.turn import Turn
from shared.conversation.thoughts import parted

_PARSERS = (
    "start the servers with the parsers of this base (--reasoning-parser, --tool-call-parser), or set "
    "TUNESTREAM_RENDER__POLICY=warn to train all the same"
)

NO_TOOL_PARSER = "calls were not compared: the server has no tool parser"
NO_TOOLS = "calls of rows that offer no tools were not compared: a server leaves such calls in the text"
NO_REASONING_PARSER = "thoughts come back within the text: the server has no reasoning parser"


def answer_difference(turn: Turn, given: Given, *, tools_parsed: bool) -> tuple[Difference | None, str | None]:
    """The first difference between the message of the row and the one that the server gives back, and what could not
    be compared. `tools_parsed`: the server has a tool parser."""
    texts, thoughts = _said(turn.message)
    text, back_thoughts, note = _back(given, thoughts)
    if _plain(thoughts) != _plain(back_thoughts):
        return _different(turn, "thoughts", thoughts, back_thoughts), note
    calls = _calls(turn.message)
    if calls and not (turn.tools and tools_parsed):
        note = NO_TOOL_PARSER if turn.tools else NO_TOOLS
        within = any(_plain(one) in _plain(text) for one in texts)
        return (None if within else _different(turn, "text", texts[0], text)), note
    if difference := _calls_difference(turn, calls, given.calls):
        return difference, note
    if _plain(text) not in map(_plain, texts):
        return _different(turn, "text", texts[0], text), note
    return None, note


def _said(message: Mapping[str, Any]) -> tuple[list[str], str]:
    """The texts that the message may have become, and its thoughts."""
    content, thoughts = message.get("content"), message.get("reasoning_content")
    parts = [content or ""] if not isinstance(content, list) else [part["text"] for part in content]
    texts = list(dict.fromkeys(("".join(parts), "\n".join(parts))))
    if thoughts:
        return texts, str(thoughts)
    split = [_split(text) for text in texts]
    return [text for _, text in split], split[0][0]


def _back(given: Given, expected: str) -> tuple[str, str, str | None]:
    """The text and the thoughts that came back, and what to say of their place."""
    if given.reasoning is not None:
        return given.content, given.reasoning, None
    thoughts, text = _split(given.content)
    return text, thoughts, NO_REASONING_PARSER if expected and thoughts else None


def _split(text: str) -> tuple[str, str]:
    """Thoughts within a text, and the text without them."""
    found = parted(text)
    return ("", text) if found.thoughts is None or found.cut else (found.thoughts, found.answer)


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _calls(message: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Name and arguments of each call. vLLM gives a template no arguments where they are not the JSON of an object."""
    made = []
    for call in message.get("tool_calls") or ():
        arguments = _json(call["function"]["arguments"])
        made.append((call["function"]["name"], arguments if isinstance(arguments, dict) else {}))
    return made


def _calls_difference(
    turn: Turn, said: Sequence[tuple[str, Any]], back: Sequence[tuple[str, str]]
) -> Difference | None:
    if len(said) != len(back):
        message = (
            f"the server reads {len(back)} call{'' if len(back) == 1 else 's'} in this answer, the row has {len(said)}"
        )
        return Difference(turn.field, message, _PARSERS)
    for index, ((name, arguments), (other, text)) in enumerate(zip(said, back, strict=True)):
        place = f"{turn.field}.tool_calls[{index}]"
        if name != other:
            message = f"the server reads a call of another function than '{short(name)}' in it"
            return Difference(place, message, _PARSERS)
        if not _same(arguments, _json(text)):
            message = f"the server reads other arguments of '{short(name)}' in it than the row has"
            return Difference(place, message, _PARSERS)
    return None


def _json(text: str) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return _BROKEN


_BROKEN = object()  # equal to no JSON value


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal. For Python, `true` is 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _different(turn: Turn, what: str, said: str, back: str) -> Difference:
    ours, theirs = _plain(said), _plain(back)
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))
    return Difference(
        turn.field,
        f"of the tokens that are trained for it, the server makes other {what} than the row has: {len(theirs)} "
        f"characters instead of {len(ours)}, other from character {place} on",
        _PARSERS,
    )
