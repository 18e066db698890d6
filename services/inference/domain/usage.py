"""The number of tokens of an answer, as the server counts them: in its JSON, or in the last event of its stream.

A stream has the usage only if the request asks for it (`stream_options.include_usage`), in an event of its own without
choices. The gateway always asks, and drops that event if the client did not ask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from shared import strict_json
from shared.strict_json import InvalidJson

_EVENT_END = re.compile(rb"\r?\n\r?\n")


@dataclass(frozen=True)
class Usage:
    prompt: int
    completion: int


def usage_of(body: bytes) -> Usage | None:
    """The usage in a whole JSON answer; None if it has none."""
    return _usage(_parse(body))


def ask_for_usage(body: dict[str, Any]) -> dict[str, Any] | None:
    """The change to a request that asks for the usage of its stream. None if none is needed: the request asks already,
    does not ask for a stream, or is invalid, in which case vLLM answers with an error."""
    options = body.get("stream_options") or {}
    if body.get("stream") is not True or not isinstance(options, dict) or options.get("include_usage"):
        return None
    # vLLM ignores this option without `include_usage`, and would put a usage into every event with it
    kept = {name: value for name, value in options.items() if name != "continuous_usage_stats"}
    return {"stream_options": {**kept, "include_usage": True}}


class StreamedUsage:
    """Finds the usage in a stream of server-sent events. `hidden`: the client did not ask for it, so it is left out."""

    def __init__(self, *, hidden: bool) -> None:
        self.found: Usage | None = None
        self.events = 0
        """Complete events so far. One has a token at least, but for the first and the last ones."""
        self._hidden = hidden
        self._held = b""
        """The beginning of an event that is not complete yet."""

    def pass_on(self, chunk: bytes) -> bytes:
        """The bytes that the client gets after `chunk` came: only complete events, unchanged."""
        self._held += chunk
        passed, start = [], 0
        for end in _EVENT_END.finditer(self._held):
            event = self._held[start : end.end()]
            start = end.end()
            self.events += 1
            if not (self._tells_usage(event) and self._hidden):
                passed.append(event)
        self._held = self._held[start:]
        return b"".join(passed)

    def rest(self) -> bytes:
        """The bytes that are left at the end of the stream."""
        return self._held

    def _tells_usage(self, event: bytes) -> bool:
        """Whether the event holds nothing but the usage."""
        if not event.startswith(b"data:") or b'"usage"' not in event:  # most events need not be parsed
            return False
        answer = _parse(event.removeprefix(b"data:"))
        usage = _usage(answer)
        if usage is None:
            return False
        self.found = usage
        return not answer.get("choices")


def _parse(text: bytes) -> Any:
    try:
        return strict_json.loads(text)
    except InvalidJson:
        return None


def _usage(answer: Any) -> Usage | None:
    usage = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(usage, dict):
        return None
    counts = [usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")]
    return Usage(*counts) if all(isinstance(count, int) and count >= 0 for count in counts) else None
