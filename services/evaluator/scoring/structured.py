"""Structured output: whether an answer is JSON, matches the schema, and has the right values, field by field."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema.protocols import Validator
from jsonschema.validators import validator_for
from referencing import Registry

from services.evaluator.domain.kinds.structure import document_of, outside_references
from shared.errors import InputError


def checked(schema: Mapping[str, Any]) -> None:
    """See that answers can be compared with the schema of a job.

    Raises:
        InputError: it is no JSON schema, or refers to another one.
    """
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path)) or "the schema"
        raise InputError(
            "invalid_json_schema", f"evaluation.json_schema is no JSON schema: {where}: {error.message[:200]}."
        ) from None
    if elsewhere := outside_references(schema):
        raise InputError(
            "invalid_json_schema",
            f"evaluation.json_schema refers to {elsewhere[0][:200]}; nothing is loaded from elsewhere: put it under "
            "$defs of the same schema, and refer to it as #/$defs/….",
        )


def structured(reference: str, answer: str, schema: Mapping[str, Any] | None) -> dict[str, float]:
    """Three scores, each from 0 to 1. Where the reference is no JSON document, all are 1.0 if the answer is none.

    `json_valid`: the answer as a whole is a JSON object or array. `json_schema`: it matches `schema`; without one, it
    is valid. `json_fields`: the F1 of its values: two have a value in common if it stands at the same path.
    """
    wanted, given = document_of(reference), document_of(answer)
    if wanted is None:
        return dict.fromkeys(("json_valid", "json_schema", "json_fields"), float(given is None))
    if given is None:
        return dict.fromkeys(("json_valid", "json_schema", "json_fields"), 0.0)
    theirs, ours = Counter(_values(wanted)), Counter(_values(given))
    return {
        "json_valid": 1.0,
        "json_schema": float(schema is None or _matches(given, schema)),
        "json_fields": 2 * (theirs & ours).total() / (theirs.total() + ours.total()),
    }


def _matches(document: Any, schema: Mapping[str, Any]) -> bool:
    try:
        return bool(_validator(json.dumps(schema, sort_keys=True)).is_valid(document))
    except Exception:  # a schema of a row that cannot be used says nothing of the answer
        return True


@lru_cache(maxsize=256)
def _validator(schema: str) -> Validator:
    loaded = json.loads(schema)
    # an empty registry, because the usual one loads what `$ref` names from the network
    return validator_for(loaded, default=Draft202012Validator)(loaded, registry=Registry())


def _values(value: Any, path: str = "") -> Iterator[Hashable]:
    """Every value with its path; of an object or array without any, itself."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _values(item, f"{path}.{json.dumps(key)}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _values(item, f"{path}[{index}]")
    elif isinstance(value, str):
        yield path, "string", " ".join(unicodedata.normalize("NFC", value).split())
    elif isinstance(value, dict | list):
        yield path, "empty", type(value).__name__
    else:
        yield path, type(value).__name__ if isinstance(value, bool) else "number", value
