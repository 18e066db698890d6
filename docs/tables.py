"""The tables of `docs/events.md`, made from the models' own JSON Schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from shared.events import EVENTS, Event

Schema = dict[str, Any]

_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "over {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "under {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "maxProperties": "at most {} entries",
    "pattern": "like `{}`",
}


def topics() -> str:
    """The table of topics: who sends each, who reads it, and what it says."""
    rows = [
        (f"`{event.topic}`", ", ".join(event.sent_by), ", ".join(event.read_by), event.__doc__ or "")
        for event in EVENTS
    ]
    return _table(("topic", "from", "to", "says"), rows)


def fields(event: type[Event]) -> str:
    """The table of the fields of an event. Fields of nested objects are named by their path."""
    schema = event.model_json_schema()
    return _table(("field", "type", "default", "meaning"), _rows(schema, schema.get("$defs", {}), "", {}))


def _rows(schema: Schema, models: dict[str, Schema], path: str, seen: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for name, field in schema.get("properties", {}).items():
        where = path + name
        default = "**required**" if name in schema.get("required", ()) else _default(field)
        reference = next((each["$ref"] for each in _alternatives(field) if "$ref" in each), None)
        if reference is None:
            yield f"`{where}`", _type(field), default, field.get("description", "")
            continue
        model = reference.rpartition("/")[2]
        meaning = field.get("description") or models[model].get("description", "")
        if model in seen:
            yield f"`{where}`", f"as `{seen[model]}`", default, meaning if "description" in field else ""
            continue
        seen[model] = where
        yield f"`{where}`", "object", default, meaning
        yield from _rows(models[model], models, f"{where}.", seen)


def _alternatives(field: Schema) -> list[Schema]:
    return field.get("anyOf", [field])


def _default(field: Schema) -> str:
    value = field.get("default")
    return "" if value is None or isinstance(value, dict) else f"`{json.dumps(value)}`"


def _type(field: Schema) -> str:
    return " or ".join(_one_type(each) for each in _alternatives(field) if each.get("type") != "null")


def _one_type(field: Schema) -> str:
    words = [f"`{json.dumps(value)}`" for value in field.get("enum", [field["const"]] if "const" in field else [])]
    if words:
        return ", ".join(words)
    bounds = [text.format(field[name]) for name, text in _BOUNDS.items() if name in field]
    return ", ".join([str(field.get("type", "any")), *bounds])


def _table(names: tuple[str, ...], rows: Any) -> str:
    lines = [names, tuple("---" for _ in names), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
