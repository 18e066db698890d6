"""`tunestream advise` as a user calls it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from examples.support import jsonl
from examples.tasks.advice import DATASETS
from services.validate import asking
from tests.support.fakes.copying_model import CopyingModel
from tests.support.fakes.servers import Server, refusing_port
from tests.unit.cli.commands.test_commands import invoke


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("few_shot_enough", "changing_facts", "changing_facts_before", "too_few"):
        Path(f"{name}.jsonl").write_text(jsonl(DATASETS[name]()))


def test_without_an_endpoint_it_answers_from_the_file_and_says_what_is_not_known(runner: CliRunner) -> None:
    result = invoke(runner, "advise", "too_few.jsonl")
    assert result.exit_code == 0
    assert result.output.startswith("more data")
    assert "12 different examples" in result.output
    for flag in ("--endpoint", "--previous", "--requests-per-day", "--needs-sources"):
        assert flag in result.output


def test_flags_a_file_and_an_earlier_version_are_used(runner: CliRunner) -> None:
    Path("facts.yaml").write_text("changes: weekly\nneeds_sources: true\n")
    words = ("advise", "changing_facts.jsonl", "--previous", "changing_facts_before.jsonl", "--facts", "facts.yaml")
    found = json.loads(invoke(runner, *words, "--requests-per-day", "70", "--json").stdout)
    assert found["verdict"] == "retrieve" and found["facts"]["changed"] == 1.0
    assert found["asked"] == {"requests_per_day": 70, "needs_sources": True, "changes": "weekly"}
    assert len(found["not_measured"]) == 1
    Path("changing_facts.advice.yaml").write_text("requests_per_day: 9\nchanges: daily\n")
    beside = json.loads(invoke(runner, "advise", "changing_facts.jsonl", "--changes", "never", "--json").stdout)
    assert beside["asked"] == {"requests_per_day": 9, "needs_sources": None, "changes": "never"}


async def test_an_endpoint_is_asked_with_its_key(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.0)
    model = CopyingModel(failures=[429, 503])
    async with Server(model.app()).running() as server:
        words = ("few_shot_enough.jsonl", "--endpoint", f"{server.url}/v1", "--model", "copy", "--examples", "60")
        result = await asyncio.to_thread(invoke, runner, "advise", *words)
    assert result.output.startswith("prompt"), result.output
    assert len(model.requests) == 122, "60 rows twice, and two that were tried again"
    assert set(model.keys) == {"Bearer secret"} and "secret" not in result.output


def test_a_table_is_advised_on_as_the_dataset_that_it_would_become(runner: CliRunner) -> None:
    Path("tickets.csv").write_text("question,answer\n" + "".join(f"How is {at}?,It is {at * 7}.\n" for at in range(12)))
    result = invoke(runner, "advise", "tickets.csv")
    assert result.exit_code == 0 and "12 rows became 12 examples" in result.output
    assert result.output.count("more data") >= 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("few_shot_enough.jsonl", "--endpoint", "http://127.0.0.1:9/v1"), "--endpoint needs --model"),
        (("few_shot_enough.jsonl", "--changes", "often"), "weekly"),
        (("missing.jsonl",), "there is no file"),
        (("broken.jsonl",), "tunestream check"),
        (("binary.jsonl",), "is binary"),
        (("few_shot_enough.jsonl", "--facts", "broken.yaml"), "requests_per_day"),
    ],
)
def test_what_is_wrong_is_said_with_the_remedy(runner: CliRunner, words: tuple[str, ...], said: str) -> None:
    Path("broken.jsonl").write_text("{]\n" * 12)
    Path("binary.jsonl").write_bytes(b"{\x00}\n" * 12)
    Path("broken.yaml").write_text("volume: 5\n")
    result = invoke(runner, "advise", *words)
    assert result.exit_code == 1 and said in result.output


async def test_an_endpoint_that_refuses_or_is_away_is_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.0)
    async with Server(CopyingModel(failures=[404] * 100).app()).running() as server:
        words = ("few_shot_enough.jsonl", "--endpoint", f"{server.url}/v1", "--model", "copy")
        result = await asyncio.to_thread(invoke, runner, "advise", *words)
    assert result.exit_code == 1 and "404" in result.output and "OPENAI_API_KEY" in result.output
    with refusing_port() as port:
        words = ("few_shot_enough.jsonl", "--endpoint", f"http://127.0.0.1:{port}/v1", "--model", "copy")
        result = await asyncio.to_thread(invoke, runner, "advise", *words)
    assert result.exit_code == 1 and "does not answer" in result.output
