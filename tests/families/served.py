"""Asks vLLM's render server whether what is trained is what it serves. Nothing here comes from `shared.conversation`
but the encoding that is asked about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from shared.conversation import TurnEncoder, Turns, Unfit, sent_messages, sent_tools
from tests.families.render_server import Server

Calls = list[tuple[str, Any]]


async def differences(server: Server, turns: TurnEncoder, messages: Any, tools: Any, *, thinks: bool) -> list[str]:
    """What differs for the trained turns of a conversation. `thinks`: the server takes thoughts out of a text.

    Raises:
        Unfit: the conversation cannot be trained.
    """
    trained = [i for i, message in enumerate(messages) if message["role"] == "assistant" and message.get("weight") != 0]
    sequences = turns.encode(sent_messages(messages), sent_tools({"tools": tools}), trained)
    answers = [span for sequence in sequences for span in spans(sequence)]
    found = [] if len(answers) == len(trained) else [f"{len(answers)} answers are trained, {len(trained)} are there"]
    for turn, (before, answer) in zip(trained, answers, strict=False):
        asked = [{key: value for key, value in message.items() if key != "weight"} for message in messages[:turn]]
        if before != await server.prompt(asked, tools):
            found.append(f"messages[{turn}]: it does not follow the served prompt")
        got = _said(await server.message(asked, tools, before, answer[:-1]), thinks=thinks)
        wanted = _said(messages[turn], thinks=thinks)
        found += [f"messages[{turn}]: {a!r} is served as {b!r}" for a, b in zip(wanted, got, strict=True) if a != b]
    return found


async def completion_differs(server: Server, turns: TurnEncoder, prompt: str, completion: str) -> list[str]:
    """The same for a prompt and its completion."""
    [(before, answer)] = spans(turns.complete(prompt, completion))
    found = []
    if before != await server.prompt_of_text(prompt):
        found.append("it does not follow the served prompt")
    if (got := await server.text(before, answer[:-1])) != completion:
        found.append(f"{completion!r} is served as {got!r}")
    return found


def spans(sequence: Turns) -> Iterator[tuple[list[int], list[int]]]:
    """Each trained answer, and all tokens before it."""
    place = 0
    for trained, run in groupby(sequence.trained):
        end = place + len(list(run))
        if trained:
            yield sequence.ids[:place], sequence.ids[place:end]
        place = end


def _said(message: dict[str, Any], *, thinks: bool) -> tuple[str, str, Calls]:
    """Thoughts, text and calls of a message; templates and parsers trim the edges of texts."""
    text = message.get("content") or ""
    thoughts = message.get("reasoning_content") or message.get("reasoning") or ""
    if thinks and "</think>" in text:
        thoughts, _, text = text.removeprefix("<think>").partition("</think>")
    calls: Sequence[Any] = message.get("tool_calls") or ()
    called = [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]
    return thoughts.strip(), text.strip(), called


__all__ = ["Unfit", "completion_differs", "differences", "spans"]
