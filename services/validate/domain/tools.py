"""Rules for `tools`, `functions`, `tool_calls` and `function_call`, as the OpenAI API has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from services.validate.domain.findings import Finding, join, missing, short, unknown_keys, wrong_type
from services.validate.domain.parse import parse

_TOOL = frozenset({"type", "function"})
_FUNCTION = frozenset({"name", "description", "parameters", "strict"})
_CALL = frozenset({"id", "type", "function", "index"})
_CALLED = frozenset({"name", "arguments"})

_SCHEMA = 'a JSON schema such as {"type": "object", "properties": {...}}'


def tools(value: Any, at: str) -> Iterator[Finding]:
    """Check the tools that a row offers."""
    if not isinstance(value, list):
        yield wrong_type(at, value, "a list of tools")
        return
    for index, tool in enumerate(value):
        place = f"{at}[{index}]"
        if not isinstance(tool, dict):
            yield wrong_type(place, tool, 'an object {"type": "function", "function": {...}}')
            continue
        yield from unknown_keys(tool, _TOOL, place)
        if tool.get("type") != "function":
            yield Finding("invalid_tool", f"{place}.type", "is not 'function'", 'set it to "function"')
        if "function" not in tool:
            yield missing(place, "function", "add the function's name, description and parameters")
        else:
            yield from _function(tool["function"], f"{place}.function")


def functions(value: Any, at: str) -> Iterator[Finding]:
    """Check the functions that a row offers, the older form of tools."""
    if not isinstance(value, list):
        yield wrong_type(at, value, "a list of functions")
        return
    for index, function in enumerate(value):
        yield from _function(function, f"{at}[{index}]")


def _function(value: Any, at: str) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield wrong_type(at, value, "an object with name, description and parameters")
        return
    yield from unknown_keys(value, _FUNCTION, at)
    yield from _name(value, at)
    if not isinstance(value.get("description") or "", str):
        yield wrong_type(f"{at}.description", value["description"], "a string")
    if (parameters := value.get("parameters")) is not None:
        yield from _schema(parameters, f"{at}.parameters")


def _schema(value: Any, at: str) -> Iterator[Finding]:
    if not isinstance(value, dict):
        yield wrong_type(at, value, _SCHEMA)
        return
    if value.get("type", "object") != "object":
        yield Finding("invalid_tool", f"{at}.type", "is not 'object'", f"make it {_SCHEMA}")
    properties = value.get("properties", {})
    if not isinstance(properties, dict):
        yield wrong_type(f"{at}.properties", properties, "an object: name of the parameter to its schema")
        properties = {}
    for name, schema in properties.items():
        if not isinstance(schema, dict | bool):
            yield wrong_type(join(f"{at}.properties", short(name)), schema, "a JSON schema")
    required = value.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        yield wrong_type(f"{at}.required", required, "a list of names")
    elif unknown := [name for name in required if name not in properties]:
        message = f"requires '{short(unknown[0])}', which is not a property"
        yield Finding("invalid_tool", f"{at}.required", message, "add it to properties", "warning")


def tool_calls(value: Any, at: str, ids: set[str]) -> Iterator[Finding]:
    """Check the calls of a message. `ids` holds those of the conversation's earlier calls; new ones are added to it."""
    if not isinstance(value, list):
        yield wrong_type(at, value, "a list of tool calls")
        return
    if not value:
        yield Finding("empty_tool_calls", at, "is an empty list and is left out", "remove the key", "warning")
    own: set[str] = set()
    for index, call in enumerate(value):
        place = f"{at}[{index}]"
        if not isinstance(call, dict):
            yield wrong_type(place, call, 'an object {"id", "type", "function"}')
            continue
        yield from unknown_keys(call, _CALL, place)
        identity = call.get("id")
        if not isinstance(identity, str) or not identity:
            yield Finding("invalid_tool_call", f"{place}.id", "is not an id", "give every call an id of its own")
        elif identity in own:
            yield Finding("invalid_tool_call", f"{place}.id", "is the id of an earlier call too", "make it unique")
        elif identity in ids:
            # logs number the calls of each turn anew; results belong to the latest call with their id
            text = "is the id of a call of an earlier turn too"
            yield Finding("repeated_call_id", f"{place}.id", text, "make it unique", "warning")
        if isinstance(identity, str):
            own.add(identity)
        if call.get("type") != "function":
            yield Finding("invalid_tool_call", f"{place}.type", "is not 'function'", 'set it to "function"')
        yield from function_call(call.get("function"), f"{place}.function")
    ids |= own


def function_call(value: Any, at: str) -> Iterator[Finding]:
    """Check a called function: its name, and its arguments as the JSON text of an object."""
    if not isinstance(value, dict):
        yield wrong_type(at, value, 'an object {"name", "arguments"}')
        return
    yield from unknown_keys(value, _CALLED, at)
    yield from _name(value, at)
    if "arguments" not in value:
        yield missing(at, "arguments", 'add the arguments as JSON text, "{}" when there are none')
        return
    arguments, place = value["arguments"], f"{at}.arguments"
    if is_blank(arguments):
        text = 'is empty and is trained on as "{}"'
        yield Finding("empty_arguments", place, text, 'write "{}" when there are none', "warning")
    elif not isinstance(arguments, str):
        yield wrong_type(place, arguments, "JSON text in a string (json.dumps of the arguments)")
    elif (problem := _not_an_object(arguments)) is not None:
        remedy = 'write it with json.dumps, for example "{\\"city\\": \\"Rome\\"}"'
        yield Finding("invalid_arguments", place, f"is not the JSON text of an object: {problem}", remedy)


def is_blank(arguments: Any) -> bool:
    """Whether arguments are none at all, which servers take for an empty object."""
    return arguments is None or (isinstance(arguments, str) and not arguments.strip())


def _name(value: dict[str, Any], at: str) -> Iterator[Finding]:
    if "name" not in value:
        yield missing(at, "name", "add the function's name")
    elif not isinstance(value["name"], str) or not value["name"]:
        yield wrong_type(f"{at}.name", value["name"], "the function's name, a string that is not empty")


def _not_an_object(text: str) -> str | None:
    """What is wrong with the JSON text of arguments. Templates parse it as well, so the rules for rows apply."""
    found = parse(text.encode("utf-8", "surrogatepass"))
    return f"{found[0].field} {found[0].message}".strip() if isinstance(found, list) else None


def called_names(message: dict[str, Any]) -> list[str]:
    """The names of the functions that an assistant message calls; the message may still be wrong."""
    calls = message.get("tool_calls")
    found = [call.get("function") for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    found.append(message.get("function_call"))
    return [one["name"] for one in found if isinstance(one, dict) and isinstance(one.get("name"), str)]


def offered_names(row: dict[str, Any]) -> set[str]:
    """The names of the functions that a row offers; the row may still be wrong."""
    offered = [tool.get("function") for tool in row["tools"] if isinstance(tool, dict)] if _list(row, "tools") else []
    offered += row["functions"] if _list(row, "functions") else []
    return {one["name"] for one in offered if isinstance(one, dict) and isinstance(one.get("name"), str)}


def _list(row: dict[str, Any], key: str) -> bool:
    return isinstance(row.get(key), list)
