"""`tunestream keys`: make, list and revoke API keys."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli.client import Client
from cli.commands import keys as key_commands
from tests.unit.cli.commands.test_commands import invoke

SECRET = "sk-ts-" + "b" * 24 + "-" + "s" * 43


def key(number: int, **more: Any) -> dict[str, Any]:
    """A key as the api shows it."""
    limits = {"requests_per_minute": 60 if number else None, "tokens_per_minute": None, "max_open_jobs": None}
    about = {"name": f"name {number}", "project": "p", "rights": ["serve"], "limits": limits}
    return {"id": f"key_{number}", "object": "api_key", **about, "created_at": 0, "revoked_at": None, **more}


class Api:
    """The api service, with keys in pages of two."""

    def __init__(self) -> None:
        self.keys = [key(number) for number in range(5)]
        self.asked: list[tuple[str, str, Any]] = []
        self.status = 200

    def answer(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.path, body))
        if self.status != 200:
            return httpx.Response(self.status, json={"error": {"message": "it lacks the right `admin`"}})
        if request.method == "POST":
            made = {name: value for name, value in body.items() if name != "limits"}
            return httpx.Response(200, json=key(9, **made, secret=SECRET))
        if request.method == "DELETE":
            return httpx.Response(200, json={"id": "key_1", "object": "api_key", "deleted": True})
        ids = [each["id"] for each in self.keys]
        after = request.url.params.get("after")
        start = ids.index(after) + 1 if after else 0
        return httpx.Response(200, json={"data": self.keys[start : start + 2], "has_more": len(ids) > start + 2})


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Api:
    fake = Api()
    monkeypatch.setattr(key_commands, "Client", lambda target: Client(target, httpx.MockTransport(fake.answer)))
    return fake


def test_only_the_secret_of_a_new_key_goes_to_stdout(runner: CliRunner, api: Api) -> None:
    words = ["keys", "create", "ci", "--project", "q", "--right", "serve", "--right", "admin"]
    result = invoke(runner, *words, "--requests-per-minute", "5", "--max-open-jobs", "2")

    assert (result.exit_code, result.stdout) == (0, SECRET + "\n")
    assert "serve, admin in the project q" in result.stderr and SECRET not in result.stderr
    limits = {"requests_per_minute": 5, "tokens_per_minute": None, "max_open_jobs": 2}
    sent = {"name": "ci", "project": "q", "limits": limits, "rights": ["serve", "admin"]}
    assert api.asked == [("POST", "/keys", sent)]


def test_without_rights_the_server_decides(runner: CliRunner, api: Api) -> None:
    result = invoke(runner, "keys", "create", "ci", "--json")
    assert json.loads(result.stdout)["secret"] == SECRET
    assert "rights" not in api.asked[0][2] and api.asked[0][2]["project"] == "default"


@pytest.mark.parametrize("words", [["--right", "root"], ["--requests-per-minute", "0"]])
def test_a_wrong_option_is_named_and_nothing_is_asked(runner: CliRunner, api: Api, words: list[str]) -> None:
    result = invoke(runner, "keys", "create", "ci", *words)
    assert result.exit_code == 2 and words[0] in result.stderr
    assert api.asked == []


def test_the_list_has_all_pages_and_hides_what_is_revoked(runner: CliRunner, api: Api) -> None:
    api.keys[1] = key(1, revoked_at=1, name="\x1b[31mred")
    shown = invoke(runner, "keys", "list").stdout
    assert [f"key_{number}" in shown for number in range(5)] == [True, False, True, True, True]
    assert "60 requests per minute" in shown
    every = invoke(runner, "keys", "list", "--all").stdout
    assert "key_1" in every and "\x1b" not in every
    assert len(json.loads(invoke(runner, "keys", "list", "--json").stdout)) == 4


def test_an_empty_list_says_which_keys_there_are(runner: CliRunner, api: Api) -> None:
    api.keys = []
    assert "TUNESTREAM_INFERENCE__API_KEYS" in invoke(runner, "keys", "list").stderr


def test_a_key_is_revoked_by_its_id(runner: CliRunner, api: Api) -> None:
    assert invoke(runner, "keys", "revoke", "key_1").exit_code == 0
    assert api.asked == [("DELETE", "/keys/key_1", None)]


def test_a_key_without_the_right_is_told_so(runner: CliRunner, api: Api) -> None:
    api.status = 403
    result = invoke(runner, "keys", "list")
    assert result.exit_code == 1
    assert "`admin`" in result.stderr and "TUNESTREAM_INFERENCE__API_KEYS" in result.stderr
