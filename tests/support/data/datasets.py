"""Valid rows, and datasets made of rows."""

from __future__ import annotations

import json
from typing import Any


def good_row(number: int) -> dict[str, Any]:
    """A valid chat row. Each number gives a different one."""
    return {
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": f"What is {number} plus {number}?"},
            {"role": "assistant", "content": f"It is {number + number}."},
        ]
    }


def lines(*rows: Any) -> bytes:
    """A JSONL file with these rows."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def good(count: int) -> bytes:
    """A JSONL file with `count` different rows."""
    return lines(*(good_row(number) for number in range(count)))
