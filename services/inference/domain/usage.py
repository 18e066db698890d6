"""How many tokens an answer says that it took: in its JSON, or in the last events of its stream."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TAIL = 8192  # bytes of a stream's end to keep: its last events are far shorter


@dataclass(frozen=True)
class Usage:
    prompt: int
    completion: int


def usage_of(body: bytes) -> Usage | None:
    """From a whole JSON answer."""
    return _usage(_parse(body))


def usage_of_stream(tail: bytes) -> Usage | None:
    """From the end of a stream of server-sent events; None unless the client asked for `include_usage`."""
    for line in reversed(tail.split(b"\n")):
        if line.startswith(b"data: {"):
            return _usage(_parse(line.removeprefix(b"data: ")))
    return None


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _usage(answer: Any) -> Usage | None:
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    return Usage(*counts) if all(isinstance(count, int) for count in counts) else None
