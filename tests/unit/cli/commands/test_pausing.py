"""`tunestream pause` and `tunestream resume` as a user calls them, and what `watch` shows meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from cli.client import Client
from cli.commands import jobs as job_commands
from cli.jobs.follow import Snapshot
from cli.jobs.view import LiveView, PlainView
from cli.main import app
from tests.unit.cli.jobs.test_watch import ID, job


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    monkeypatch.setattr(job_commands, "Client", lambda target: Client(target, httpx.MockTransport(answer)))


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("pause", "paused", f"is paused: `tunestream resume {ID}`"),
        ("resume", "queued", f"goes on: `tunestream watch {ID}`"),
    ],
)
def test_they_ask_the_api_and_say_what_is_next(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, command: str, status: str, words: str
) -> None:
    asked: list[tuple[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((request.method, request.url.path))
        return httpx.Response(200, json=job(status))

    serve(monkeypatch, answer)
    result = runner.invoke(app, [command, ID])
    assert (result.exit_code, asked) == (0, [("POST", f"/jobs/{ID}/{command}")])
    assert words in result.stderr.replace("\n", " ")


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_a_refusal_is_shown_in_the_words_of_the_api(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    error = {"message": "Job x is not paused (running), so …", "type": "t", "param": "job_id", "code": "c"}
    serve(monkeypatch, lambda request: httpx.Response(400, json={"error": error}))
    result = runner.invoke(app, [command, ID])
    assert result.exit_code == 1
    assert "is not paused (running)" in result.stderr.replace("\n", " ")


def test_a_paused_job_is_shown_as_such_and_followed_on() -> None:
    snapshot = Snapshot(job("paused"), [{"id": "e", "type": "message", "level": "info", "message": "Job paused"}])
    assert not snapshot.final
    assert "  Job paused" in PlainView(lambda: 0.0)(snapshot)
    live, console = LiveView(ID, lambda: 0.0), Console(record=True, width=100)
    live.update(snapshot)
    console.print(live.render())
    text = console.export_text()
    assert "paused" in text and "Job paused" in text
