"""Structured output: whether an answer is a JSON document, and the schema that a set of documents has in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shared import strict_json
from shared.strict_json import InvalidJson

DEPTH = 16
"""Below so many levels a schema is not inferred."""


def document_of(text: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or array that the text is, as a client's parser would read it: nothing may stand around it. None
    if it is none; a bare number or string is a text, too."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        found = strict_json.loads(text)
    except (InvalidJson, RecursionError):
        return None
    return found if isinstance(found, dict | list) else None


def inferred(documents: Sequence[Any], depth: int = DEPTH) -> dict[str, Any]:
    """The JSON schema of documents: their types; of objects the keys that all have, and the schema of each key; of
    arrays the schema of their items. Further keys are allowed, because a document may lack what others have."""
    schema: dict[str, Any] = {"type": sorted({_type_of(document) for document in documents})}
    if "number" in schema["type"] and "integer" in schema["type"]:
        schema["type"].remove("integer")
    if not depth:
        return schema
    if objects := [document for document in documents if isinstance(document, dict)]:
        keys = dict.fromkeys(key for document in objects for key in document)
        schema["required"] = [key for key in keys if all(key in document for document in objects)]
        schema["properties"] = {
            key: inferred([document[key] for document in objects if key in document], depth - 1) for key in keys
        }
    if items := [item for document in documents if isinstance(document, list) for item in document]:
        schema["items"] = inferred(items, depth - 1)
    return schema


def schema_in(response_format: Any) -> dict[str, Any] | None:
    """The JSON schema in a `response_format` of the OpenAI API, if it has one."""
    named = response_format.get("json_schema") if isinstance(response_format, dict) else None
    schema = named.get("schema") if isinstance(named, dict) else None
    return schema if isinstance(schema, dict) else None


def outside_references(schema: Any) -> list[str]:
    """The `$ref` of a schema that lead out of it. Nothing is loaded from elsewhere."""
    waiting, found = [schema], []
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            target = value.get("$ref")
            if isinstance(target, str) and not target.startswith("#"):
                found.append(target)
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return found


def _type_of(value: Any) -> str:
    kinds: tuple[tuple[type, str], ...] = (
        (bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"), (dict, "object"), (list, "array")
    )  # fmt: skip
    return next((name for kind, name in kinds if isinstance(value, kind)), "null")
