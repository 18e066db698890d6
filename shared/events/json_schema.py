"""A first look at a JSON schema that a user gives, with the standard library only, so that a job is refused with its
settings, and not after its training. The evaluator looks again, with a library that knows all of the standard."""

from __future__ import annotations

from typing import Any

TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
_OBJECTS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
"""Their values are schemas by name."""
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems")
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")


def problem_in(schema: Any, where: str = "") -> str:
    """What is wrong with a schema, with the place; empty: nothing was found.

    Raises:
        RecursionError: it is nested too deep.
    """
    if isinstance(schema, bool):
        return ""
    at = where or "the schema"
    if not isinstance(schema, dict):
        return f"{at} is no object"
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in TYPES:
            return f"{at}: type must be one of {', '.join(TYPES)}"
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return f"{at}: required must be a list of names"
    if not isinstance(schema.get("enum", []), list):
        return f"{at}: enum must be a list of values"
    reference = schema.get("$ref", "#")
    if not isinstance(reference, str) or not reference.startswith("#"):
        return f"{at}: $ref leads out of the schema, and nothing is loaded from elsewhere; put it under $defs"
    return _below(schema, where)


def _below(schema: dict[str, Any], where: str) -> str:
    inner: list[tuple[str, Any]] = [(name, schema[name]) for name in _SCHEMAS if name in schema]
    for name in _OBJECTS:
        if not isinstance(held := schema.get(name, {}), dict):
            return f"{where or 'the schema'}: {name} must be an object"
        inner += [(f"{name}.{key}", value) for key, value in held.items()]
    for name in _LISTS:
        if not isinstance(several := schema.get(name, []), list):
            return f"{where or 'the schema'}: {name} must be a list"
        inner += [(f"{name}[{at}]", value) for at, value in enumerate(several)]
    return next((found for name, value in inner if (found := problem_in(value, f"{where}.{name}".lstrip(".")))), "")
