"""Tool calls as a structure: a name, and arguments as JSON. They come from a message, or from the text of an answer
that the server did not parse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from shared import strict_json
from shared.events import FrozenModel
from shared.strict_json import InvalidJson

# The form in which Hermes, Qwen and others write calls. The last one may lack its end, as vLLM's parser allows, too.
_WRITTEN = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)


class ToolCall(FrozenModel):
    """One call. `arguments` are in a uniform spelling if they are a JSON object, else as they were written."""

    name: str
    arguments: str
    valid: bool = True
    """Whether it has a name, and a JSON object as arguments."""

    def __str__(self) -> str:
        return f"{self.name}({self.arguments})"


def calls_of(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """The calls of a message; an older `function_call` is one."""
    functions = [call.get("function") for call in message.get("tool_calls") or () if isinstance(call, dict)]
    return tuple(
        _call(function) for function in [*functions, message.get("function_call")] if isinstance(function, dict)
    )


def written_calls(text: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Split a text into what is said and the calls that are written in it, each in `<tool_call>` and `</tool_call>`."""
    calls = tuple(_parsed(found.group(1)) for found in _WRITTEN.finditer(text))
    return _WRITTEN.sub("", text).strip() if calls else text, calls


def canonical(arguments: Any) -> str:
    """Arguments as JSON in one spelling: sorted keys, uniform spaces, 1.0 as 1. What is not JSON stays as it is."""
    try:
        value = json.loads(arguments or "{}") if isinstance(arguments, str) else {} if arguments is None else arguments
        return json.dumps(_uniform(value), sort_keys=True, ensure_ascii=False)
    except (ValueError, TypeError, RecursionError):
        return str(arguments)


def as_lines(text: str, calls: Iterable[ToolCall]) -> str:
    """The text, then one line per call: `name({"argument": value})`."""
    return "\n".join(line for line in (text, *map(str, calls)) if line)


def encodable(text: str) -> str:
    """The text without half surrogate pairs (an emoji cut in two), which JSON may contain, but UTF-8 may not."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _call(function: Mapping[str, Any]) -> ToolCall:
    name, arguments = function.get("name"), encodable(canonical(function.get("arguments")))
    name = encodable(name) if isinstance(name, str) else ""
    return ToolCall(name=name, arguments=arguments, valid=bool(name) and _is_object(arguments))


def _parsed(body: str) -> ToolCall:
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        call = None
    if not isinstance(call, dict):
        return ToolCall(name="", arguments=body.strip(), valid=False)
    return _call({"name": call.get("name"), "arguments": call.get("arguments", call.get("parameters"))})


def _is_object(arguments: str) -> bool:
    try:
        return isinstance(strict_json.loads(arguments), dict)
    except InvalidJson:
        return False


def _uniform(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _uniform(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_uniform(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
