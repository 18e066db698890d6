"""What a chat template knows, found by rendering conversations with marks in the places of their texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shared.base.digest import template_text
from shared.base.parsers import GEMMA, HARMONY, MARKS, Thinking, reasoning_parser, tool_call_parser
from shared.base.profile import Knows, Reasoning
from shared.conversation import ChatTemplate, TurnEncoder, Unfit

SWITCHES = ("enable_thinking", "thinking")
"""The variables by which templates let a request switch thoughts on and off."""

_ASK = {"role": "user", "content": "mark0mark"}
_SYSTEM = {"role": "system", "content": "mark1mark"}
_SAY = {"role": "assistant", "content": "mark2mark"}
_THOUGHT = "mark3mark"
_NAME = "mark4mark"
_IDS = ("call00000", "call00001")  # nine letters and digits, as Mistral's templates want
_TOOL = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "mark5mark",
        "parameters": {"type": "object", "properties": {"mark6mark": {"type": "string"}}, "required": ["mark6mark"]},
    },
}


@dataclass(frozen=True)
class Found:
    """What the probes have shown of a template."""

    knows: Knows
    reasoning: Reasoning
    reasoning_parser: str | None
    tool_call_parser: str | None


def probe(tokenizer: Any, stop_ids: Sequence[int], model_type: str, kwargs: Mapping[str, Any]) -> Found:
    """Ask the template of a tokenizer of transformers, which has one. `kwargs`: what it is given beside messages and
    tools."""
    asked = _Asked(tokenizer, stop_ids, kwargs)
    called = asked.answer([_ASK, _calling(1)], [_TOOL])
    # where a template cannot write a call, its prompt may tell the model how to
    told = called if called is not None else asked.prompt([_ASK], [_TOOL])
    vocabulary = tokenizer.get_vocab()
    calls = tool_call_parser(told or "", model_type, vocabulary) if _has(asked.prompt([_ASK], [_TOOL]), _NAME) else None
    switchable = any(asked.switches(name) for name in SWITCHES)
    thinking = asked.thinking(switchable)
    reasoning: Reasoning = "none"
    if switchable:
        reasoning = "switchable"
    elif thinking is not None and (thinking.marked or thinking.opened):
        reasoning = "always"
    return Found(
        asked.knows(called is not None),
        reasoning,
        reasoning_parser(thinking, calls, vocabulary) if thinking is not None and reasoning != "none" else None,
        calls,
    )


def _calling(number: int) -> dict[str, Any]:
    calls = [
        {"id": one, "type": "function", "function": {"name": _NAME, "arguments": json.dumps({"mark6mark": one})}}
        for one in _IDS[:number]
    ]
    return {"role": "assistant", "tool_calls": calls}


class _Asked:
    def __init__(self, tokenizer: Any, stop_ids: Sequence[int], kwargs: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self._stops = frozenset(stop_ids)
        self._kwargs = dict(kwargs)
        self._turns = TurnEncoder(tokenizer, stop_ids, self._kwargs)
        self._source = template_text(tokenizer.chat_template)

    def prompt(self, messages: Sequence[Mapping[str, Any]], tools: Any = None, **kwargs: Any) -> str | None:
        """The prompt for an answer; None: the template refuses the conversation."""
        try:
            return ChatTemplate(self._tokenizer, {**self._kwargs, **kwargs}).text(messages, tools, prompt=True)
        except Unfit:
            return None

    def answer(self, messages: Sequence[Mapping[str, Any]], tools: Any = None) -> str | None:
        """What is trained of the last turn, without the stop token; None: the base cannot be trained on it."""
        try:
            [made] = self._turns.encode(messages, tools, [len(messages) - 1])
        except Unfit:
            return None
        ids = [token for token, trained in zip(made.ids, made.trained, strict=True) if trained]
        ids = ids[:-1] if ids[-1] in self._stops else ids
        return str(self._tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def knows(self, tool_calls: bool) -> Knows:
        result = {"role": "tool", "tool_call_id": _IDS[0], "name": _NAME, "content": _THOUGHT}
        developer = {**_SYSTEM, "role": "developer"}
        names_developer = '"developer"' in self._source or "'developer'" in self._source  # vLLM's own test
        return Knows(
            system=_has(self.prompt([_SYSTEM, _ASK]), _SYSTEM["content"]),
            developer=names_developer and _has(self.prompt([developer, _ASK]), _SYSTEM["content"]),
            tools=_has(self.prompt([_ASK], [_TOOL]), _NAME, "mark5mark", "mark6mark"),
            tool_calls=tool_calls,
            several_calls=tool_calls and self.answer([_ASK, _calling(2)], [_TOOL]) is not None,
            tool_results=tool_calls and _has(self.prompt([_ASK, _calling(1), result], [_TOOL]), _THOUGHT),
        )

    def switches(self, name: str) -> bool:
        """Whether this variable changes the prompt."""
        if name not in self._source:
            return False
        on, off = (self.prompt([_ASK], **{name: value}) for value in (True, False))
        return on is not None and off is not None and on != off

    def thinking(self, switchable: bool) -> Thinking | None:
        """How thoughts are written; None: they are not."""
        prompt = (self.prompt([_ASK]) or "").rstrip()
        plain = self.answer([_ASK, _SAY]) or ""
        thought = self.answer([_ASK, {**_SAY, "reasoning_content": _THOUGHT}]) or ""
        for marks in MARKS:
            closed = prompt.endswith(marks.closing)
            opened = not closed and marks.opening in prompt
            marked = marks.closing in plain
            if closed or opened or marked or (_THOUGHT in thought and marks.closing in thought):
                return Thinking(marks, closed, opened, marked, switchable)
        # these keep thoughts out of what was said before, and only the template's text tells how a model writes them
        for marks in (HARMONY, GEMMA):
            if marks.opening in self._source:
                return Thinking(marks, False, marks == HARMONY, False, switchable)
        return None


def _has(text: str | None, *marks: str) -> bool:
    return text is not None and all(mark in text for mark in marks)
