"""How right an answer of a model without a training is, by the kind of the task."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from services.validate.domain.advice.facts import Kind
from services.validate.domain.advice.samples import folded
from services.validate.domain.advice.verdict import Score
from shared.scoring.rouge import rouge_l

METRICS: dict[Kind, str] = {
    "labels": "accuracy",
    "structured output": "json_fields",
    "tool calls": "tool_calls",
    "free text": "rouge_l",
}
_Z = 1.96
_FENCE = re.compile(r"^```\w*\n(.*?)\n?```$", re.DOTALL)


def score(kind: Kind, reference: str, answer: str) -> float:
    """From 0 to 1."""
    if kind == "labels":
        return float(folded(answer).strip(" .!\"'`*") == folded(reference).strip(" .!\"'`*"))
    if kind in ("structured output", "tool calls"):
        try:
            return _fields(_json(reference), _json(answer))
        except RecursionError:  # no record is nested as deeply
            return 0.0
    return rouge_l(reference, answer)


def interval(scores: Sequence[float]) -> Score:
    """The mean with its interval at 95 %: Wilson's, with the spread of these scores; it is never narrower than a few
    answers allow."""
    n, mean = len(scores), sum(scores) / len(scores)
    spread = sum((each - mean) ** 2 for each in scores) / n
    middle = (mean + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(spread / n + _Z**2 / (4 * n * n)) / (1 + _Z**2 / n)
    return Score(mean=round(mean, 4), low=round(max(0.0, middle - half), 4), high=round(min(1.0, middle + half), 4))


def _json(text: str) -> Any:
    try:
        return json.loads(found[1] if (found := _FENCE.match(text.strip())) else text)
    except (ValueError, RecursionError):
        return None


def _fields(wanted: Any, given: Any) -> float:
    """The share of the fields that are as wanted; fields that are too many count as wrong."""
    one, other = dict(_flat(wanted, "")), dict(_flat(given, ""))
    names = one.keys() | other.keys()
    right = [name for name in names if name in one and name in other and one[name] == other[name]]
    return len(right) / max(1, len(names))


def _flat(value: Any, path: str) -> list[tuple[str, Any]]:
    if isinstance(value, str) and value[:1] in "{[" and (inner := _json(value)) is not None:
        value = inner  # the arguments of a call
    if isinstance(value, dict):
        return [leaf for name, part in value.items() for leaf in _flat(part, f"{path}.{name}")]
    if isinstance(value, list):
        return [leaf for at, part in enumerate(value) for leaf in _flat(part, f"{path}[{at}]")]
    return [(path, value)]
