"""A page of a list as JSON, in OpenAI's form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def listing(items: Sequence[Mapping[str, Any]], has_more: bool) -> dict[str, Any]:
    return {
        "object": "list",
        "data": list(items),
        "has_more": has_more,
        "first_id": items[0]["id"] if items else None,
        "last_id": items[-1]["id"] if items else None,
    }


def whole_seconds(at: float) -> int:
    """A time as OpenAI's API gives it; 0 if it is no time at all."""
    return int(at) if math.isfinite(at) else 0
