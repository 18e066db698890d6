"""The quarantine as a user sees it: what could not become a job, why, and what to do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from shared.events import Quarantined
from shared.stages import quarantine
from shared.store.objects import ObjectStore
from tests.support.fakes.store import FakeStore
from tests.unit.cli.commands.test_commands import invoke


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> FakeStore:
    store = FakeStore(clock=lambda: 1_000_000.0)
    monkeypatch.setattr(ObjectStore, "connect", lambda settings: store)
    return store


def hold(store: FakeStore, name: str, **changes: Any) -> None:
    about = Quarantined(
        kind="drop",
        place="s3://datasets/a.jsonl",
        field="dataset",
        reason="it is archived",
        remedy="restore it",
        at=900_000.0,
    ).model_copy(update=changes)
    asyncio.run(quarantine.hold(store, name, about))


@pytest.mark.usefixtures("store")
def test_an_empty_quarantine(runner: CliRunner) -> None:
    result = invoke(runner, "quarantine")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing is in quarantine" in result.stderr
    assert invoke(runner, "quarantine", "list", "--json").stdout == "[]\n"


def test_the_list_names_place_field_and_reason_oldest_first(runner: CliRunner, store: FakeStore) -> None:
    hold(store, "new", at=950_000.0, place="s3://datasets/b\n\x1b[31m.jsonl")
    hold(store, "old")
    hold(store, "solved", reason="was denied")
    asyncio.run(quarantine.solve(store, "drop", "solved"))
    for words in (["quarantine"], ["quarantine", "list"]):
        result = invoke(runner, *words)
        assert result.exit_code == 0
        first, second = result.stdout.splitlines()[1:]
        assert first.split()[0] == "drop/old" and second.split()[0] == "drop/new"
        assert "1970-01-11 10:00:00" in first
        assert "s3://datasets/a.jsonl" in first and "dataset" in first and "it is archived" in first
        assert "\x1b" not in result.stdout
        assert "was denied" not in result.stdout
        assert "was denied" in invoke(runner, *words, "--all").stdout
    listed = json.loads(invoke(runner, "quarantine", "--json").stdout)
    assert [(about["id"], about["kind"]) for about in listed] == [("drop/old", "drop"), ("drop/new", "drop")]


def test_show_says_what_to_do_and_whether_it_is_tried_again(runner: CliRunner, store: FakeStore) -> None:
    hold(store, "one")
    hold(store, "two", final=False)
    shown = invoke(runner, "quarantine", "show", "drop/one").stdout
    assert "restore it" in shown and "not until it changes" in shown
    assert "less and less often" in invoke(runner, "quarantine", "show", "drop/t").stdout
    asyncio.run(quarantine.solve(store, "drop", "one"))
    assert "became a job at 1970-01-12" in invoke(runner, "quarantine", "show", "drop/one").stdout
    assert json.loads(invoke(runner, "quarantine", "show", "drop/one", "--json").stdout)["solved_at"] == 1_000_000.0


@pytest.mark.parametrize(
    ("name", "says"), [("drop/none", "there is no drop/none"), ("drop/", "2 of them"), ("", "no ")]
)
def test_show_of_none_or_several(runner: CliRunner, store: FakeStore, name: str, says: str) -> None:
    hold(store, "one")
    hold(store, "two")
    result = invoke(runner, "quarantine", "show", name)
    assert result.exit_code == 1 and result.stdout == ""
    assert says in result.stderr and "list --all" in result.stderr


def test_a_document_of_another_version_is_listed_too(runner: CliRunner, store: FakeStore) -> None:
    hold(store, "one")
    for name, data in (("a", b"\xff"), ("b", b'{"kind": 7}'), ("c", b"[" * 100_000), ("d", b'{"at": 1e999}')):
        store.add(f"quarantine/later/{name}.json", data)
    result = invoke(runner, "quarantine")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 6
    assert "later/a" in result.stdout and "cannot read" in result.stdout
