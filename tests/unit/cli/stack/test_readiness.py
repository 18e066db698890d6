"""When `tunestream up` takes a program for ready."""

from __future__ import annotations

import httpx
import pytest

from cli.stack import readiness
from tests.support.fakes.clock import Clock


@pytest.mark.parametrize(
    ("status", "body", "note"),
    [
        (200, b'{"status": "ready"}', None),
        (200, b"", None),  # the render server
        (200, b"[]", None),
        (200, b'{"status": "ready", "warnings": {"bus": "not connected"}}', "bus: not connected"),
        (503, b'{"problems": {"vllm": "loading", "start": "starting"}}', "vllm: loading, start: starting"),
        (503, b'{"problems": null}', "answers 503"),
        (500, b"oh", "answers 500"),
    ],
)
def test_what_a_program_answers(monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, note: str | None) -> None:
    monkeypatch.setattr(httpx, "get", lambda *args, **options: httpx.Response(status, content=body))
    assert readiness.http(1)() == note


def test_a_warning_holds_up_the_start_only_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    body = {"status": "ready", "warnings": {"bus": "the message bus does not answer"}}
    monkeypatch.setattr(httpx, "get", lambda *args, **options: httpx.Response(200, json=body))
    clock = Clock()
    probe = readiness.http(1, clock=clock)
    assert probe() == "bus: the message bus does not answer"
    clock.now += readiness.WARNING_SECONDS - 1
    assert probe() is not None
    clock.now += 1
    assert probe() is None
