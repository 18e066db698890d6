"""Templates of graders: `{{item.answer}}`, `{{sample.output_text}}`, `{{sample.output_json.name}}`,
`{{sample.choices[0].message.content}}`.

A path goes down by names (`.name`, `["any name"]`) and by places in lists (`[0]`, `.0`). A string is put in as it is,
any other value as JSON. What is put in is no template: marks in it stay as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from shared import strict_json
from shared.strict_json import InvalidJson

NAMESPACES = ("item", "sample")
MAX_FILLED = 2**20
"""Characters of a template with its values."""
# a mark has no brace, so that a text full of "{{" is read once only
_MARK = re.compile(r"\{\{([^{}]{0,512})\}\}")
_FIRST = re.compile(r"\s*([A-Za-z_]\w*)")
_STEP = re.compile(r"""\s*(?:\.\s*([\w$-]+)|\[\s*([0-9]{1,9})\s*\]|\[\s*"([^"\]]*)"\s*\]|\[\s*'([^'\]]*)'\s*\])""")


class BadTemplate(ValueError):
    """A mark of a template can never be filled. The message says which and why."""


class MissingVariable(LookupError):
    """The item or the sample does not have what a template names."""


class SampleIsNoJson(ValueError):
    """A template names `sample.output_json`, and the sample is no JSON."""


class TooLong(ValueError):
    """The template with its values is longer than `MAX_FILLED`."""


def check(template: str) -> None:
    """Make sure that every mark is a path into the item or the sample.

    Raises:
        BadTemplate: see there.
    """
    for mark in _MARK.finditer(template):
        path = _path(mark[1])
        shown = mark[0] if len(mark[0]) <= 80 else mark[0][:79] + "…"
        if path is None:
            raise BadTemplate(f"{shown} is no path: write {{{{item.name}}}} or {{{{sample.output_text}}}}")
        if path[0] not in NAMESPACES:
            raise BadTemplate(f"{shown} begins with neither item nor sample: write {{{{item.{path[0]}}}}}, say")


def variables(item: Mapping[str, Any], sample: str) -> dict[str, Any]:
    """The values that templates can name, of one item of a dataset and the text that a model answered."""
    message: dict[str, Any] = {"role": "assistant", "content": sample, "refusal": None, "tool_calls": []}
    given: dict[str, Any] = {
        "output_text": sample,
        "output_tools": [],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
    }
    try:
        given["output_json"] = strict_json.loads(sample)
    except InvalidJson:
        given["output_json"] = SampleIsNoJson
    return {"item": dict(item), "sample": given}


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with the values of `variables` in it.

    Raises:
        MissingVariable, SampleIsNoJson, TooLong: see there.
    """
    parts: list[str] = []
    size = end = 0
    for mark in _MARK.finditer(template):
        for part in (template[end : mark.start()], _text(_look_up(mark[1], values))):
            parts.append(part)
            size += len(part)
        if size > MAX_FILLED:
            raise TooLong
        end = mark.end()
    parts.append(template[end:])
    if size + len(parts[-1]) > MAX_FILLED:
        raise TooLong
    return "".join(parts)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and value.get("output_json") is SampleIsNoJson:  # the whole sample
        value = {name: held for name, held in value.items() if name != "output_json"}
    return json.dumps(value, ensure_ascii=False)


def _look_up(mark: str, values: Mapping[str, Any]) -> Any:
    path = _path(mark)
    if path is None:
        raise MissingVariable(mark)
    value: Any = values
    for step in path:
        if isinstance(value, Mapping) and str(step) in value:
            value = value[str(step)]
        elif isinstance(value, list) and str(step).isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            raise MissingVariable(mark)
        if value is SampleIsNoJson:
            raise SampleIsNoJson(mark)
    return value


def _path(mark: str) -> list[str] | None:
    """The names that a mark goes down by; None: it is no path."""
    first = _FIRST.match(mark)
    if first is None:
        return None
    path, place = [first[1]], first.end()
    while step := _STEP.match(mark, place):
        path.append(next(group for group in step.groups() if group is not None))
        place = step.end()
    return None if mark[place:].strip() else path
