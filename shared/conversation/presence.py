"""Whether what a row holds is in the text that its template writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from shared.conversation.template import ChatTemplate, Unfit
from shared.conversation.thoughts import after_thoughts, pieces

_FORMS = 256  # how many forms of conversations are remembered


def missing_in_answer(message: Mapping[str, Any], text: str, spelled: Callable[[str], str]) -> str | None:
    """What of an assistant message is not in the text that is trained on; None: nothing.

    `spelled`: a text as the base's tokenizer writes it. Some compose letters and accents, or join white space.
    """

    def there(part: str) -> bool:
        return _has(text, part) or _has(text, spelled(part))

    reasoning = message.get("reasoning_content")
    if isinstance(reasoning, str) and not there(reasoning):
        return "reasoning_content"
    for said in _texts(message.get("content")):
        # thoughts within a text may be written with other line ends around their marks
        if not all(there(part) for part in pieces(said)):
            return "content"
    return next((name for name, parts in _calls(message) if not all(there(part) for part in parts)), None)


def missing_in_prompt(messages: Sequence[Mapping[str, Any]], tools: Any, text: str, known: int = 0) -> str | None:
    """Which message or tool is not in the prompt; None: all are. Thoughts of earlier turns may be left out. `known`:
    so many messages were found in a text with which this one begins."""
    for index, message in enumerate(messages[known:], start=known):
        place = f"messages[{index}] (role {message['role']})"
        for said in _texts(message.get("content")):
            spoken = after_thoughts(said) if message["role"] == "assistant" else said
            if not _has(text, spoken):
                return place
        for name, parts in _calls(message):
            if not all(_has(text, part) for part in parts):
                return f"{name} of {place}"
    for index, tool in enumerate(tools or ()):
        function = tool["function"]
        properties = (function.get("parameters") or {}).get("properties") or {}
        if not all(_has(text, part) for part in (function["name"], *properties)):
            return f"tools[{index}]"
    return None


class Probe:
    """Asks a template whether it writes all parts of a conversation, by putting marks in their places: a short text
    such as "ok" may stand in a prompt by chance. Conversations of one form are asked about once."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template
        self._known: dict[str, str | None] = {}
        self._plain: dict[tuple[str, ...], str | None] = {}

    def missing(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> str | None:
        form = None if tools else _plain_form(messages)
        if form is None:
            return self._missing(messages, tools)
        if form not in self._plain:
            if len(self._plain) >= _FORMS:
                self._plain.clear()
            self._plain[form] = self._missing(messages, tools)
        return self._plain[form]

    def _missing(self, messages: Sequence[Mapping[str, Any]], tools: Any) -> str | None:
        marks: dict[str, str] = {}
        ids: dict[str, str] = {}
        marked = [_marked(message, index, marks, ids) for index, message in enumerate(messages)]
        offered = [_marked_tool(tool, index, marks) for index, tool in enumerate(tools or ())]
        form = json.dumps([marked, offered])
        if form not in self._known:
            if len(self._known) >= _FORMS:
                self._known.clear()
            self._known[form] = self._ask(marked, offered or None, marks)
        return self._known[form]

    def _ask(self, marked: list[dict[str, Any]], offered: Any, marks: Mapping[str, str]) -> str | None:
        try:
            text = self._template.text(marked, offered, prompt=True)
        except Unfit:  # it wants other values than marks; what the row itself holds is looked for all the same
            return None
        return next((place for mark, place in marks.items() if mark not in text), None)


def _plain_form(messages: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """What of messages decides how they are marked, where that is their roles and which of their texts are empty; None:
    it is more."""
    form = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str) or "tool_call_id" in message or message.get("tool_calls"):
            return None
        form.append(message["role"])
        form.append("" if not content or content.isspace() else "text")
    return tuple(form)


def _marked(message: Mapping[str, Any], index: int, marks: dict[str, str], ids: dict[str, str]) -> dict[str, Any]:
    place = f"messages[{index}] (role {message['role']})"

    def mark(of: str = place) -> str:
        made = f"mark{len(marks)}mark"
        marks[made] = of
        return made

    def identity(known: str) -> str:
        return ids.setdefault(known, f"call{len(ids):05}")  # nine letters and digits, as Mistral's templates want

    made = {"role": message["role"]}
    if "tool_call_id" in message:
        made["tool_call_id"] = identity(message["tool_call_id"])
    content = message.get("content")
    if isinstance(content, str):
        made["content"] = mark() if content.strip() else ""
    elif content is not None:
        made["content"] = [{"type": "text", "text": mark() if part["text"].strip() else ""} for part in content]
    if calls := message.get("tool_calls"):
        made["tool_calls"] = [
            {
                "id": identity(call["id"]),
                "type": "function",
                "function": {
                    "name": mark(f"tool_calls[{number}] of {place}"),
                    "arguments": json.dumps({"a": mark(f"tool_calls[{number}] of {place}")}),
                },
            }
            for number, call in enumerate(calls)
        ]
    return made


def _marked_tool(tool: Mapping[str, Any], index: int, marks: dict[str, str]) -> dict[str, Any]:
    function = dict(tool["function"])
    for key in ("name", "description"):
        if function.get(key):
            function[key] = f"mark{len(marks)}mark"
            marks[function[key]] = f"tools[{index}]"
    return {"type": "function", "function": function}


def _calls(message: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        try:
            arguments = json.loads(function["arguments"])
        except ValueError:
            arguments = function["arguments"]
        yield f"tool_calls[{index}]", [function["name"], *_leaves(arguments)]


def _leaves(value: Any) -> Iterator[str]:
    """The keys, texts and numbers of arguments."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield str(key)
            yield from _leaves(one)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one)
    elif value is not None:
        yield value if isinstance(value, str) else json.dumps(value)


def _texts(content: Any) -> list[str]:
    if content is None:
        return []
    return [content] if isinstance(content, str) else [part["text"] for part in content]


def _has(text: str, part: str) -> bool:
    """Whether a text is there: white space at its edges aside, and perhaps as JSON or as Python writes it."""
    wanted = part.strip()
    if wanted in text or (wanted in ("true", "false") and wanted.title() in text):
        return True
    forms = (json.dumps(wanted)[1:-1], json.dumps(wanted, ensure_ascii=False)[1:-1], repr(wanted)[1:-1])
    return any(form in text or json.dumps(form)[1:-1] in text for form in forms)
