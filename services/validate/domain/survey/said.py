"""The texts of a row: what is asked, and what is answered. The row may still be wrong in any way."""

from __future__ import annotations

from typing import Any, NamedTuple


class Said(NamedTuple):
    """`prompt`: everything before the answer but the system prompt, which rows share. `question`: the last message of
    the user. `answer`: the last message of the assistant, with the names and arguments of its calls; of a preference
    pair the preferred answer and then the other one."""

    prompt: str
    question: str
    answer: str
    calls: bool = False


def said(value: Any) -> Said | None:
    """The texts of a row in any of the three formats; None: it has none."""
    if not isinstance(value, dict):
        return None
    if "messages" in value:
        messages = _messages(value["messages"])
        return _chat(messages[:-1], messages[-1:]) if messages else None
    if "preferred_completion" in value:
        asked = value.get("input")
        sides = [_messages(value.get(side)) for side in ("preferred_completion", "non_preferred_completion")]
        return _chat(_messages(asked.get("messages")) if isinstance(asked, dict) else [], sides[0] + sides[1])
    prompt, completion = value.get("prompt"), value.get("completion")
    if isinstance(prompt, str) and isinstance(completion, str):
        return Said(prompt, prompt, completion)
    return None


def _chat(asked: list[dict[str, Any]], answers: list[dict[str, Any]]) -> Said:
    prompt, question = [], ""
    for message in asked:
        if message.get("role") in ("system", "developer"):
            continue
        text = text_of_message(message)
        prompt.append(text)
        if message.get("role") == "user":
            question = text
    calls = bool(answers) and bool(answers[0].get("tool_calls") or answers[0].get("function_call"))
    # a row that ends with the answer to a result of a tool teaches the call before it, too
    calls = calls or any(message.get("tool_calls") for message in asked if message.get("role") == "assistant")
    return Said("\n".join(prompt), question, "\n".join(map(text_of_message, answers)), calls)


def _messages(value: Any) -> list[dict[str, Any]]:
    return [message for message in value if isinstance(message, dict)] if isinstance(value, list) else []


def text_of_message(message: dict[str, Any]) -> str:
    """The content of a message, and the names and arguments of its calls."""
    content = message.get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "\n".join(part for part in parts if isinstance(part, str))
    text = content if isinstance(content, str) else ""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if isinstance(function, dict):
            text += f" {function.get('name')} {function.get('arguments')}"
    return text
