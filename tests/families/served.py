"""Tells whether what is trained is what vLLM serves, by asking its render server.

Nothing here comes from `shared.conversation` but the encoding that is looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from shared.conversation import TurnEncoder, Turns, sent_messages, sent_tools
from tests.families.render_server import Server

Calls = list[tuple[str, Any]]


@dataclass(frozen=True)
class Base:
    """A base as the trainer has it, and the server that serves it."""

    server: Server
    tokenizer: Any
    stops: tuple[int, ...]
    reads: bool = True
    """The server has the base's own parsers, if it needs any, so that it gives back the messages."""
    thinks: bool = False
    """It takes thoughts out of the text."""

    async def wrong(self, messages: Any, tools: Any) -> list[str]:
        """What is wrong with what is trained of a conversation.

        Raises:
            Unfit: the conversation cannot be trained.
        """
        turns = [i for i, m in enumerate(messages) if m["role"] == "assistant" and m.get("weight") != 0]
        encoder = TurnEncoder(self.tokenizer, self.stops)
        sequences = encoder.encode(sent_messages(messages), sent_tools({"tools": tools}), turns)
        answers = [span for sequence in sequences for span in spans(sequence)]
        if len(answers) != len(turns):
            return [f"{len(answers)} answers are trained, {len(turns)} are there"]
        found = []
        for turn, (before, answer) in zip(turns, answers, strict=True):
            asked = [{key: value for key, value in m.items() if key != "weight"} for m in messages[:turn]]
            found += [f"messages[{turn}]: {one}" for one in self._lost(asked, messages[turn], tools, before, answer)]
            if before != await self.server.prompt(asked, tools):
                found.append(f"messages[{turn}]: it does not follow the served prompt")
            if self.reads:
                wanted = self._said(messages[turn])
                got = self._said(await self.server.message(asked, tools, before, answer[:-1]))
                pairs = zip(wanted, got, strict=True)
                found += [f"messages[{turn}]: {a!r} is served as {b!r}" for a, b in pairs if a != b]
        return found

    async def completion_wrong(self, prompt: str, completion: str) -> list[str]:
        """The same for a prompt and its completion."""
        [(before, answer)] = spans(TurnEncoder(self.tokenizer, self.stops).complete(prompt, completion))
        found = []
        if before != await self.server.prompt_of_text(prompt):
            found.append("it does not follow the served prompt")
        if (got := await self.server.text(before, answer[:-1])) != completion:
            found.append(f"{completion!r} is served as {got!r}")
        return found

    def _lost(self, asked: Any, message: Any, tools: Any, before: list[int], answer: list[int]) -> Iterator[str]:
        if answer[-1] not in self.stops or sum(token in self.stops for token in answer) != 1:
            yield "not one stop at the end"
        text, prompt = self.tokenizer.decode(answer), self.tokenizer.decode(before)
        yield from (f"{part!r} is not trained" for part in _parts(message, thoughts=True) if not _has(text, part))
        parts = [part for one in asked for part in _parts(one, thoughts=False)]
        parts += [tool["function"]["name"] for tool in tools or ()]
        yield from (f"{part!r} is not in the prompt" for part in parts if not _has(prompt, part))

    def _said(self, message: dict[str, Any]) -> tuple[str, str, Calls]:
        """Thoughts, text and calls of a message; templates and parsers trim the edges of texts."""
        content = message.get("content") or ""
        text = content if isinstance(content, str) else "".join(part["text"] for part in content)
        thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
        if self.thinks and "</think>" in text:
            thoughts, _, text = text.removeprefix("<think>").partition("</think>")
        calls: Sequence[Any] = message.get("tool_calls") or ()
        called = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
        return thoughts.strip(), text.strip(), called


def spans(sequence: Turns) -> Iterator[tuple[list[int], list[int]]]:
    """Each trained answer, and all tokens before it."""
    place = 0
    for trained, run in groupby(sequence.trained):
        end = place + len(list(run))
        if trained:
            yield sequence.ids[:place], sequence.ids[place:end]
        place = end


def _parts(message: Any, *, thoughts: bool) -> Iterator[str]:
    content = message.get("content") or ""
    said = [content] if isinstance(content, str) else [part["text"] for part in content]
    for text in said:
        pieces = re.split("</?think>", text)
        yield from pieces if thoughts else pieces[-1:]
    if thoughts:
        yield message.get("reasoning_content") or ""
    for called in message.get("tool_calls") or ():
        yield called["function"]["name"]
        for key, value in json.loads(called["function"]["arguments"]).items():
            yield key
            yield value if isinstance(value, str) else json.dumps(value)


def _has(text: str, part: str) -> bool:
    wanted = part.strip()
    forms = [wanted, json.dumps(wanted)[1:-1], json.dumps(wanted, ensure_ascii=False)[1:-1]]
    return any(form in text for form in [*forms, *([wanted.title()] if wanted in ("true", "false") else [])])
