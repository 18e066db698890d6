"""A schema that cannot be used is refused with the job's settings, and the message names the place."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.events import JobSpec


def spec(schema: Any) -> JobSpec:
    return JobSpec.model_validate({"evaluation": {"json_schema": schema}})


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "strnig"}, "the schema: type must be one of array"),
        ({"properties": {"a": {"type": "int"}}}, r"properties\.a: type must be one of"),
        ({"required": "a"}, "required must be a list"),
        ({"properties": []}, "properties must be an object"),
        ({"items": {"anyOf": {}}}, "items: anyOf must be a list"),
        ({"items": {"anyOf": [{"enum": "x"}]}}, r"items\.anyOf\[0\]: enum must be a list"),
        ({"properties": {"a": {"$ref": "https://elsewhere/x.json"}}}, "nothing is loaded from elsewhere"),
        ({"items": 3}, "items is no object"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(schema: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        spec(schema)


def test_usual_schemas_pass() -> None:
    schema = {
        "$defs": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
        "type": "object",
        "properties": {
            "to": {"$ref": "#/$defs/city"},
            "n": {"type": ["integer", "null"], "minimum": 0},
            "tags": {"type": "array", "items": {"type": "string"}},
            "type": {"const": "parcel"},
        },
        "required": ["to"],
        "additionalProperties": False,
    }
    assert spec(schema).evaluation.json_schema == schema
