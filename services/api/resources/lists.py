"""A page of a list as JSON, in OpenAI's form."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def listing(items: Sequence[Mapping[str, Any]], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": list(items),
        "has_more": has_more,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
    }


def behind(items: Sequence[T], after: str | None, id_of: Callable[[T], str]) -> Sequence[T] | None:
    """The items behind the one with the id `after`; None as `after`: all of them. Returns None if there is no such
    item."""
    if after is None:
        return items
    place = next((place for place, item in enumerate(items, start=1) if id_of(item) == after), None)
    return None if place is None else items[place:]


def whole_seconds(at: float) -> int:
    """A time as OpenAI's API gives it; 0 if it is no time at all."""
    return int(at) if math.isfinite(at) else 0
