"""What is sent to the endpoint for an example: the example alone, or solved examples followed by it."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from services.evaluator.domain.examples import Example
from shared.events import FrozenModel

# Separates solved examples of the completion format. It is also the stop sequence of such a prompt, because the model
# would otherwise go on and invent examples. So no answer may contain it.
SEPARATOR = "\n\n###\n\n"


class Prompt(FrozenModel):
    """One request: chat `messages` (with `tools`), or the `text` that is to be continued."""

    messages: tuple[dict[str, Any], ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    text: str | None = None
    stop: tuple[str, ...] = ()


def zero_shot(example: Example) -> Prompt:
    """The example as a user would ask it."""
    return Prompt(messages=example.messages, tools=example.tools, text=example.prompt)


def few_shot(example: Example, solved: Sequence[Example]) -> Prompt:
    """The solved examples, then the example.

    In a chat, the example's own system messages come first, then the turns of the solved examples without their system
    messages, then its own turns. A solved call is a call of the message, as the model's own would be.
    """
    if example.prompt is not None:
        shots = [f"{shot.prompt}{shot.reference}" for shot in solved]
        return Prompt(text=SEPARATOR.join([*shots, example.prompt]), stop=(SEPARATOR,))
    system = [message for message in example.messages if _is_system(message)]
    turns = [message for message in example.messages if not _is_system(message)]
    shown: list[dict[str, Any]] = []
    for number, shot in enumerate(solved, 1):
        answer = shot.answer or {"role": "assistant", "content": shot.reference}
        solution = [*(message for message in shot.messages if not _is_system(message)), answer]
        shown.extend(_with_own_ids(message, number) for message in solution)
    return Prompt(messages=(*system, *shown, *turns), tools=example.tools)


def few_shot_prompts(example: Example, solved: Sequence[Example]) -> tuple[Prompt, ...]:
    """The few-shot prompt, then the same with fewer and fewer solved examples down to none, for a context that is too
    short."""
    return tuple(few_shot(example, solved[:count]) for count in range(len(solved), -1, -1))


def _with_own_ids(message: dict[str, Any], number: int) -> dict[str, Any]:
    """The message of a solved example, whose calls may have the ids of another one's."""

    def own(known: str) -> str:
        # some templates want nine letters and digits
        return f"s{number:02}{zlib.crc32(known.encode()) % 10**6:06}"

    made = dict(message)
    if calls := made.get("tool_calls"):
        made["tool_calls"] = [{**call, "id": own(call["id"])} for call in calls]
    if "tool_call_id" in made:
        made["tool_call_id"] = own(made["tool_call_id"])
    return made


def _is_system(message: dict[str, Any]) -> bool:
    return message.get("role") in ("system", "developer")
