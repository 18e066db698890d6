"""`tunestream deploy` and `tunestream rollback`: they read the current version first, and send it."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.client import Client
from cli.commands import models as model_commands
from cli.main import app


class Endpoint:
    """The inference service with the alias `support`; `current` is None if there is none."""

    def __init__(self) -> None:
        self.current: str | None = "new"
        self.previous = "old"
        self.rolled_back = False
        self.refuses: tuple[int, str] | None = None
        self.asked: list[tuple[str, Any]] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            if self.current is None:
                return httpx.Response(404, json={"error": {"message": "There is no alias `support`."}})
            return httpx.Response(200, json=self.document(self.current, self.rolled_back))
        body = json.loads(request.content)
        self.asked.append((request.url.path, body))
        if self.refuses is not None:
            return httpx.Response(self.refuses[0], json={"error": {"message": self.refuses[1]}})
        return httpx.Response(200, json=self.document(body.get("model") or body.get("to") or self.previous, False))

    def document(self, model: str, rolled_back: bool) -> dict[str, Any]:
        current = {"model": model, "rolled_back": rolled_back}
        return {"alias": "support", "current": current, "previous": {"model": self.previous}}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    fake = Endpoint()
    monkeypatch.setattr(model_commands, "Client", lambda target: Client(target, httpx.MockTransport(fake.answer)))
    return fake


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (["deploy", "newer", "support"], "", {"model": "newer", "expected": "new"}),
        (["deploy", "newer", "support", "--expected", "old"], "", {"model": "newer", "expected": "old"}),
        (["rollback", "support"], "/rollback", {"expected": "new"}),
        (["rollback", "support", "--to", "oldest"], "/rollback", {"to": "oldest", "expected": "new"}),
        (["rollback", "support", "--expected", "other"], "/rollback", {"expected": "other"}),
    ],
)
def test_the_version_that_is_read_first_is_the_one_expected(
    runner: CliRunner, endpoint: Endpoint, words: list[str], path: str, body: Any
) -> None:
    result = runner.invoke(app, words)

    assert result.exit_code == 0, result.stderr
    assert endpoint.asked == [(f"/deployments/support{path}", body)]
    assert "it was new" in result.stderr


def test_a_new_alias_is_deployed_without_an_expectation(runner: CliRunner, endpoint: Endpoint) -> None:
    endpoint.current = None

    assert runner.invoke(app, ["deploy", "newer", "support"]).exit_code == 0
    assert endpoint.asked == [("/deployments/support", {"model": "newer"})]


def test_a_rollback_that_is_repeated_goes_nowhere(runner: CliRunner, endpoint: Endpoint) -> None:
    endpoint.current, endpoint.previous, endpoint.rolled_back = "old", "new", True

    result = runner.invoke(app, ["rollback", "support"])

    assert result.exit_code == 1
    assert "rolled back already, from new to old" in result.stderr
    assert "--expected old" in result.stderr and "--to MODEL" in result.stderr
    assert endpoint.asked == []
    assert runner.invoke(app, ["rollback", "support", "--expected", "old"]).exit_code == 0


def test_a_rollback_of_an_alias_that_is_not_there(runner: CliRunner, endpoint: Endpoint) -> None:
    endpoint.current = None

    result = runner.invoke(app, ["rollback", "support"])

    assert result.exit_code == 1
    assert "there is no alias support" in result.stderr


def test_a_refusal_is_told_in_the_words_of_the_server(runner: CliRunner, endpoint: Endpoint) -> None:
    endpoint.refuses = (409, "The alias `support` names other now.")

    result = runner.invoke(app, ["deploy", "newer", "support"])

    assert result.exit_code == 1
    assert "names other now" in result.stderr
