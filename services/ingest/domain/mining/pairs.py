"""Preference rows of other tools as the preference format: an input, the better answer, the worse one."""

from __future__ import annotations

import re
from typing import Any

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import key_of, text_of
from services.ingest.domain.mining.turns import Message, Speakers, as_list, raw_messages

_SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant|User|H|A):[ \n]?")
"""The turns in a text, as in Anthropic's HH-RLHF."""
_A = {"a", "1", "first", "responsea", "answera", "modela", "response1", "answer1", "left", "completiona", "outputa"}
_B = {"b", "2", "second", "responseb", "answerb", "modelb", "response2", "answer2", "right", "completionb", "outputb"}


def preference(
    prompt: list[Message], chosen: Any, rejected: Any, speakers: Speakers, system: str | None
) -> dict[str, Any]:
    """A row of the preference format. `prompt`: what the row itself says is asked; empty: it is what both answers begin
    with.

    Raises:
        LeftOut: nothing is asked, an answer is missing, or both are the same.
    """
    better, worse = answer_of(chosen, speakers), answer_of(rejected, speakers)
    if not better or not worse:
        raise LeftOut("no_answer")
    if better == worse:
        raise LeftOut("no_choice", "both answers are the same")
    shared = 0
    while shared < min(len(better), len(worse)) - 1 and better[shared] == worse[shared]:
        shared += 1
    asked = better[:shared] if shared else prompt
    if any(len(side) != shared + 1 or side[-1]["role"] != "assistant" for side in (better, worse)):
        raise LeftOut("no_choice", "the answers are to different conversations")
    if not any(message["role"] == "user" for message in asked):
        raise LeftOut("no_question")
    if system and asked[0]["role"] not in ("system", "developer"):
        asked = [{"role": "system", "content": system}, *asked]
    return {
        "input": {"messages": asked},
        "preferred_completion": [better[-1]],
        "non_preferred_completion": [worse[-1]],
    }


def prompt_of(value: Any, speakers: Speakers) -> list[Message]:
    """What is asked: a text, or the messages so far."""
    if as_list(value):
        return [message for item in raw_messages(value, speakers) for message in item]
    text = text_of(value)
    spoken = _spoken(text)
    return spoken or ([{"role": "user", "content": text}] if text else [])


def first_is_better(choice: Any) -> bool:
    """Whether annotators preferred answer A.

    Raises:
        LeftOut: they preferred neither, or their word is not known.
    """
    key = key_of(text_of(choice)[:64])
    if key in _A or key in _B:
        return key in _A
    word = text_of(choice)[:40]
    raise LeftOut("no_choice", f"{word!r} is neither A nor B" if word else "")


def answer_of(value: Any, speakers: Speakers) -> list[Message]:
    """The messages of an answer: one, or a conversation that ends with it."""
    if isinstance(value, dict):
        value = [value]
    if as_list(value):
        return [message for item in raw_messages(value, speakers) for message in item]
    text = text_of(value)
    return _spoken(text) or ([{"role": "assistant", "content": text}] if text else [])


def _spoken(text: str) -> list[Message]:
    """The turns of a text that says `Human:` and `Assistant:`; none if it does not begin so."""
    parts = _SPOKEN.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] not in ("Human", "User", "H"):
        return []
    roles = ["user" if word in ("Human", "User", "H") else "assistant" for word in parts[1::2]]
    said = [part.strip() for part in parts[2::2]]
    return [{"role": role, "content": text} for role, text in zip(roles, said, strict=True) if text]
