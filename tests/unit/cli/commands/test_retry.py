"""`tunestream retry` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.client import Client
from cli.commands import jobs as job_commands
from cli.jobs.follow import Snapshot
from cli.main import app
from shared.events import RUNNER_STAGES
from tests.unit.cli.jobs.test_watch import ID, done, job

NEW = "ftjob-new"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    """Method, path and body of each request to the api, which answers with a new job."""
    requests: list[tuple[str, str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append((request.method, request.url.path, json.loads(request.content)))
        return httpx.Response(200, json=job() | {"id": NEW, "origin": {"parent_job": ID, "from_stage": "trainer"}})

    serve(monkeypatch, answer)
    return requests


def serve(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    monkeypatch.setattr(job_commands, "Client", lambda target: Client(target, httpx.MockTransport(answer)))


def invoke(runner: CliRunner, *words: str) -> Result:
    return runner.invoke(app, ["retry", *words])


@pytest.mark.parametrize(("words", "body"), [([], {}), (["--from", "validate"], {"from": "validate"})])
def test_it_prints_the_id_of_the_new_job_and_how_to_follow_it(
    runner: CliRunner, asked: list[tuple[str, str, Any]], words: list[str], body: Any
) -> None:
    result = invoke(runner, ID, *words)
    assert (result.exit_code, result.stdout) == (0, f"{NEW}\n")
    assert f"begins again from trainer: `tunestream watch {NEW}`" in result.stderr
    assert asked == [("POST", f"/jobs/{ID}/retry", body)]


def test_it_can_follow_the_new_job(
    runner: CliRunner, asked: list[tuple[str, str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    followed = []

    def follow(client: Client, job_id: str, *, expected: bool) -> Any:
        followed.append((job_id, expected))
        return iter([Snapshot(done(), [])])

    monkeypatch.setattr(job_commands, "follow", follow)
    result = invoke(runner, ID, "--watch")
    assert result.exit_code == 0
    assert "promoted: support is" in result.output
    assert followed == [(NEW, True)] and len(asked) == 1


@pytest.mark.parametrize("status", [400, 404])
def test_a_refusal_is_told_in_the_words_of_the_api(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    error = {"message": "Job x succeeded; say which stage.", "type": "invalid_request_error", "param": "from"}
    serve(monkeypatch, lambda request: httpx.Response(status, json={"error": error}))
    result = invoke(runner, ID)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "say which stage" in result.stderr
    assert "Traceback" not in result.output


def test_the_help_names_the_stages(runner: CliRunner) -> None:
    shown = " ".join(invoke(runner, "--help").stdout.replace("│", " ").split())
    assert ", ".join(RUNNER_STAGES) in shown
