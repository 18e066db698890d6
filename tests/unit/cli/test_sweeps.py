"""`tunestream sweep` and `tunestream sweeps` as a user calls them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner, Result

from cli.client import Client
from cli.main import app
from cli.sweeps import commands, follow, view

ID = "sweep-" + "a" * 24
FILE = {"id": "file-1"}


def trial(number: int, status: str = "succeeded", **fields: Any) -> dict[str, Any]:
    usual = {"number": number, "job_id": f"ftjob-{number}", "status": status, "parameters": {"r": 8 * (number + 1)}}
    curve = [[0.5, 2.0 + number], [1.0, 1.0 + number]]
    more = {"valid_loss": 1.0 + number, "curve": curve, "seconds": 5.0, "fine_tuned_model": f"ft:base:::{number}"}
    return usual | more | {"error": None, "pruned": None} | fields


def sweep(status: str = "succeeded", trials: int = 2, **fields: Any) -> dict[str, Any]:
    data = [trial(number) for number in range(trials)]
    usual: dict[str, Any] = {"id": ID, "status": status, "filename": "rows.jsonl", "trials": 3, "created_at": 100}
    over = status in ("succeeded", "failed", "cancelled")
    usual |= {"as_of": 160.0, "finished_at": 150 if over else None, "space": {"r": [8, 16]}, "data": data}
    usual |= {"counts": {"queued": 0, "running": 0, "succeeded": trials}, "spent": {"seconds": 10.0}, "error": None}
    usual |= {"best": data[0] if data else None, "evaluated_by": "ftjob-best", "fine_tuned_model": "ft:base:::best"}
    return usual | {"promoted": status == "succeeded"} | fields


class Api:
    """Answers `states` of the sweep one after the other, and keeps what it was asked."""

    def __init__(self, *states: dict[str, Any] | Exception) -> None:
        self.states = list(states)
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        path = request.url.path
        if path == "/v1/files":
            return httpx.Response(200, json=FILE)
        if path.endswith("/report"):
            return httpx.Response(200, text="<h1>page</h1>")
        if path == "/sweeps" and request.method == "GET":
            return httpx.Response(200, json={"data": self.states})
        state = self.states.pop(0) if len(self.states) > 1 and request.method == "GET" else self.states[0]
        if isinstance(state, Exception):
            raise state
        return httpx.Response(200, json=state)

    def body(self) -> Any:
        [post] = [each for each in self.asked if each.method == "POST" and each.url.path == "/sweeps"]
        assert len(post.headers["idempotency-key"]) == 32
        return json.loads(post.content)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Api]:
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)

    def serve(*states: dict[str, Any] | Exception) -> Api:
        api = Api(*states)
        monkeypatch.setattr(commands, "Client", lambda target: Client(target, httpx.MockTransport(api)))
        return api

    return serve


@pytest.fixture
def rows() -> str:
    Path("rows.jsonl").write_text('{"messages": []}\n')
    return "rows.jsonl"


def invoke(runner: CliRunner, *words: str) -> Result:
    return runner.invoke(app, [*words])


def test_it_uploads_the_file_asks_for_the_search_and_follows_it(
    runner: CliRunner, serve: Callable[..., Api], rows: str
) -> None:
    running = sweep("running", 1, data=[trial(0, "running", valid_loss=None)])
    api = serve(running, running, sweep())
    words = ["--search", "r=8,16", "--search", "learning_rate_multiplier=0.2..5:log", "--search", "n_epochs=1..3"]
    result = invoke(
        runner, "sweep", rows, "--trials", "3", *words, "--budget", "seconds=60", "--alias", "best", "--set", "seed=4"
    )
    assert result.exit_code == 0, result.output
    assert api.body() == {
        "training_file": "file-1",
        "trials": 3,
        "parallel": 1,
        "pruning": "median",
        "seed": 0,
        "spec": {"alias": "best", "seed": 4},
        "space": {
            "r": [8, 16],
            "learning_rate_multiplier": {"low": 0.2, "high": 5, "log": True},
            "n_epochs": {"low": 1, "high": 3},
        },
        "budget": {"seconds": 60},
    }
    assert result.stdout.splitlines()[0] == ID
    assert "trial 0 running: r=8  valid loss 1.0000" in result.stdout
    assert result.stdout.count("trial 0 running") == 1
    assert "promoted: ft:base:::best, the best of 2 trials" in result.stdout


def test_detached_it_prints_the_id_alone(runner: CliRunner, serve: Callable[..., Api], rows: str) -> None:
    api = serve(sweep("running", 0))
    result = invoke(runner, "sweep", rows, "--detach")
    assert (result.exit_code, result.stdout) == (0, f"{ID}\n")
    assert "space" not in api.body() and "budget" not in api.body()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--search", "r"], "write name=values"),
        (["--search", "r=eight"], "'eight' is no number"),
        (["--search", "r=1..x"], "'x' is no number"),
        (["--budget", "60"], "write name=values"),
        (["--set", "lora.q=1"], "there is no such setting"),
    ],
)
def test_a_wrong_option_is_refused_before_anything_is_sent(
    runner: CliRunner, serve: Callable[..., Api], rows: str, words: list[str], says: str
) -> None:
    api = serve(sweep())
    result = invoke(runner, "sweep", rows, *words)
    assert result.exit_code == 1 and says in result.stderr and not api.asked


def test_what_failed_and_what_was_pruned_is_told_with_its_reason(runner: CliRunner, serve: Callable[..., Api]) -> None:
    failed = trial(0, "failed", error={"code": "out_of_memory", "message": "Lower batch_size."}, valid_loss=None)
    pruned = trial(1, "pruned", pruned="above the median", valid_loss=None)
    error = {"code": "out_of_memory", "message": "No trial has a model.", "param": None}
    serve(sweep("failed", data=[failed, pruned], error=error, best=None, promoted=False))
    result = invoke(runner, "sweeps", "show", ID)
    assert result.exit_code == 1
    assert "trial 0 failed: Lower batch_size." in result.stderr
    assert "trial 1 was pruned: above the median" in result.stderr
    assert "out_of_memory: No trial has a model." in result.stderr


def test_an_api_that_is_away_for_a_while_does_not_end_the_command(runner: CliRunner, serve: Callable[..., Api]) -> None:
    serve(sweep("running"), httpx.ConnectError("gone"), sweep(promoted=False))
    result = invoke(runner, "sweeps", "show", ID)
    assert result.exit_code == 0, result.output
    assert "still trying" in result.stdout and "not promoted: ft:base:::best" in result.stdout


def test_the_list_the_json_the_page_and_the_end(runner: CliRunner, serve: Callable[..., Api]) -> None:
    api = serve(sweep())
    listed = invoke(runner, "sweeps")
    assert ID in listed.stdout and "2 of 3" in listed.stdout and "1.0000" in listed.stdout
    assert json.loads(invoke(runner, "sweeps", "show", ID, "--json").stdout)["id"] == ID
    assert invoke(runner, "sweeps", "report", ID).stdout == f"{ID}.html\n"
    assert Path(f"{ID}.html").read_text() == "<h1>page</h1>"
    assert "is being cancelled" in invoke(runner, "sweeps", "cancel", ID).stderr
    assert (api.asked[-1].method, api.asked[-1].url.path) == ("POST", f"/sweeps/{ID}/cancel")


def test_in_a_terminal_a_sweep_is_a_table_with_a_curve_for_each_trial() -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(view.live(sweep("running", 2, data=[trial(0), trial(1, "running", valid_loss=None)]), "still trying"))
    headline, head, best, other, trouble = console.export_text().splitlines()
    assert f"{ID}  running  2 of 3 trials: 2 succeeded; 10.0 s of training" in headline
    assert head.split()[:4] == ["trial", "status", "valid", "loss"]
    assert best.split()[:4] == ["0", "best", "1.0000", "8"] and "▁" in best
    assert other.split()[:4] == ["1", "running", "2.0000", "16"] and "█" in other
    assert trouble.strip() == "still trying"
