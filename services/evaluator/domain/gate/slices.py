"""Slices of the test rows: those with one value of their metadata, and those with short, medium or long texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.evaluator.domain.examples import Example
from services.evaluator.domain.messages import message_text

MOST_KEYS = 6
VALUES = range(2, 13)
"""Keys with fewer or more values do not slice by themselves; `gate.checks.slice_by` may name them."""
MOST_VALUES = 100


def slices_of(examples: Sequence[Example], slice_by: Sequence[str]) -> dict[str, list[int]]:
    """The indexes of the examples of each slice, by its name. A slice is never all of the rows."""
    named: dict[str, list[int]] = {}
    for key in slice_by or _keys(examples):
        values: dict[str, list[int]] = {}
        for index, example in enumerate(examples):
            if key in example.metadata:
                values.setdefault(example.metadata[key], []).append(index)
        for value in sorted(values)[:MOST_VALUES]:
            named[f"{key} = {value}"] = values[value]
    for what, size in (("prompts", _prompt_size), ("references", lambda example: len(example.reference))):
        for word, chosen in _thirds(examples, size).items():
            named[f"{word} {what}"] = chosen
    return {name: chosen for name, chosen in named.items() if 0 < len(chosen) < len(examples)}


def _keys(examples: Sequence[Example]) -> list[str]:
    found = sorted({key for example in examples for key in example.metadata})
    several = [key for key in found if len({e.metadata[key] for e in examples if key in e.metadata}) in VALUES]
    return several[:MOST_KEYS]


def _thirds(examples: Sequence[Example], size: Callable[[Example], int]) -> dict[str, list[int]]:
    """By size: a third each, where equal sizes stay together."""
    sizes = [size(example) for example in examples]
    ordered = sorted(sizes)
    low, high = ordered[len(ordered) // 3 : len(ordered) // 3 + 1], ordered[2 * len(ordered) // 3 :][:1]
    if not low or low == high:
        return {}
    return {
        "short": [index for index, found in enumerate(sizes) if found < low[0]],
        "medium": [index for index, found in enumerate(sizes) if low[0] <= found < high[0]],
        "long": [index for index, found in enumerate(sizes) if found >= high[0]],
    }


def _prompt_size(example: Example) -> int:
    if example.prompt is not None:
        return len(example.prompt)
    return sum(len(message_text(message)) for message in example.messages)
