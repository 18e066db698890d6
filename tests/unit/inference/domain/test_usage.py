"""The usage of a stream, however the network cuts it."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from services.inference.domain.usage import StreamedUsage, Usage


def event(data: dict[str, Any], end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + end


def text(content: str, **more: Any) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": content}}], **more}


USAGE = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}
DONE = b"data: [DONE]\n\n"


def run(stream: bytes, *, hidden: bool, cuts: list[int]) -> tuple[bytes, Usage | None]:
    usage, passed = StreamedUsage(hidden=hidden), b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        passed += usage.pass_on(stream[start:end])
    return passed + usage.rest(), usage.found


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n"])
@pytest.mark.parametrize("hidden", [True, False])
def test_only_the_usage_event_is_taken_away_wherever_the_stream_is_cut(hidden: bool, end: bytes) -> None:
    talk = [event(text(word), end) for word in ("usage", '"usage"', 'data: {"usage": 1}\n\n', "ünïcode")]
    stream = b"".join(talk) + event(USAGE, end) + DONE
    wanted = b"".join(talk) + DONE if hidden else stream
    draw = random.Random(0)
    for _ in range(200):
        cuts = sorted(draw.sample(range(1, len(stream)), 5))
        assert run(stream, hidden=hidden, cuts=cuts) == (wanted, Usage(prompt=7, completion=5))


def test_an_event_with_text_is_never_taken_away() -> None:
    """Some servers tell the usage beside the last words."""
    stream = event(text("last words", usage={"prompt_tokens": 7, "completion_tokens": 5})) + DONE
    assert run(stream, hidden=True, cuts=[]) == (stream, Usage(prompt=7, completion=5))


def test_a_whole_event_goes_on_at_once() -> None:
    usage = StreamedUsage(hidden=True)
    assert usage.pass_on(event(text("now")) + b"data: {") == event(text("now"))


@pytest.mark.parametrize(
    "stream", [b"", b"data: {broken\n\n", b": comment\n\n", b'data: {"usage":null}\n\n', b"no end"]
)
def test_a_stream_without_usage_passes_unchanged(stream: bytes) -> None:
    assert run(stream, hidden=True, cuts=[]) == (stream, None)
