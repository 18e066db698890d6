"""Calls of a chat API as they were logged: the messages of a request, and the `choices` of its response."""

from __future__ import annotations

from typing import Any

from services.ingest.domain.mining.left_out import LeftOut
from services.ingest.domain.mining.records import text_of
from services.ingest.domain.mining.turns import Message, as_list

_SAID = ("content", "refusal", "tool_calls")
_CUT = ("length", "content_filter")
"""Why an answer ended before its end, as the OpenAI API says it in `finish_reason`."""


def is_choices(value: Any) -> bool:
    """Whether a value is a list of choices, or the JSON of one."""
    items = as_list(value)
    return bool(items) and all(isinstance(item, dict) and isinstance(item.get("message"), dict) for item in items)


def answer_in(value: Any) -> Message:
    """The answer of a response: the first of its choices; or a text that is one.

    Raises:
        LeftOut: there is none, or it was cut off.
    """
    if not is_choices(value):
        text = text_of(value) if isinstance(value, str) else ""
        if not text:
            raise LeftOut("no_answer")
        return {"role": "assistant", "content": text}
    choice = as_list(value)[0]
    if (reason := choice.get("finish_reason")) in _CUT:
        raise LeftOut("cut_answer", f"its finish_reason is {reason}")
    said = {key: choice["message"][key] for key in _SAID if choice["message"].get(key)}
    if not said:
        raise LeftOut("no_answer")
    return {"role": "assistant", **said}
