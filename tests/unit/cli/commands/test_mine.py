"""The command mine: what people see before they drop a file."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from tests.unit.cli.commands.test_commands import invoke

TABLE = "ticket_id,Frage,Antwort,score\n1,Hallo?,Ja.,5\n2,Nein?,Doch.,1\n"


def test_it_shows_columns_examples_and_what_is_left_out(runner: CliRunner) -> None:
    Path("tickets.csv").write_text(TABLE)
    shown = invoke(runner, "mine", "tickets.csv", "--filter", "score >= 4", "--system", "Sei nett.")
    assert shown.exit_code == 0, shown.stderr
    for words in (
        "comma between the cells",
        "system: Sei nett.",
        "user: Hallo?",
        "assistant: Ja.",
        "1 do not meet the filter (line 3)",
    ):
        assert words in shown.stdout
    assert sorted(path.name for path in Path().iterdir()) == ["tickets.csv"]


def test_it_writes_the_dataset_with_the_settings_beside_the_file_and_flags_over_them(runner: CliRunner) -> None:
    Path("tickets.csv").write_text(TABLE)
    Path("tickets.job.yaml").write_text("source: {filter: score >= 4, system: Aus der Datei.}\n")
    written = invoke(runner, "mine", "tickets.csv", "--system", "Von Hand.", "--out", "rows.jsonl")
    assert written.exit_code == 0, written.stderr
    [row] = map(json.loads, Path("rows.jsonl").read_text().splitlines())
    assert [message["content"] for message in row["messages"]] == ["Von Hand.", "Hallo?", "Ja."]


def test_columns_and_roles_by_flag(runner: CliRunner) -> None:
    Path("a.csv").write_text("Betreff,Text,Loesung\nDrucker,kaputt,neu\n")
    flags = ["--column", "user=betreff", "--column", "user=text", "--column", "assistant=loesung"]
    shown = invoke(runner, "mine", "a.csv", *flags, "--json")
    assert json.loads(shown.stdout)["mapping"] == {"user": ["Betreff", "Text"], "assistant": ["Loesung"]}


def test_what_cannot_be_read_ends_with_the_remedy_and_leaves_no_file(runner: CliRunner) -> None:
    Path("odd.csv").write_text("alpha,beta\n1,2\n")
    refused = invoke(runner, "mine", "odd.csv", "--out", "rows.jsonl")
    assert refused.exit_code == 1
    assert "the columns alpha, beta" in refused.stderr and "--column user=COLUMN" in refused.stderr
    assert not Path("rows.jsonl").exists()
    assert invoke(runner, "mine", "odd.csv", "--column", "usr=alpha").exit_code == 1
    Path("tickets.csv").write_text(TABLE)
    filtered = invoke(runner, "mine", "tickets.csv", "--filter", "Score ~ 4")
    assert filtered.exit_code == 1 and filtered.stderr.startswith("error: source.filter: ")
    assert filtered.stderr.count("source.filter") == 1
    assert "--column alpha: write name=value" in invoke(runner, "mine", "odd.csv", "--column", "alpha").stderr
