"""Curating a dataset: row by row, resumable, with what the checks found beside each row."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cli.main import app


def chat(question: str, answer: str, **beside: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": messages, **beside}


ROWS = [chat(f"question {number}?", f"answer {number}") for number in range(1, 5)]


@pytest.fixture
def dataset() -> Path:
    return write(Path("rows.jsonl"), ROWS)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def curate(runner: CliRunner, keys: str, *words: str) -> Result:
    """Run the command on `rows.jsonl`; `keys` are typed one after the other."""
    return runner.invoke(app, ["curate", "rows.jsonl", *words], input="".join(f"{key}\n" for key in keys))


def curated() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("rows.curated.jsonl").read_text().splitlines()]


@pytest.fixture
def editor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An editor that replaces what the file `change` names: {old: new}."""
    program = tmp_path / "editor.py"
    program.write_text(
        "import json, pathlib, sys\n"
        f"changes = json.loads(pathlib.Path({str(tmp_path / 'change')!r}).read_text())\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        "for old, new in changes.items():\n"
        "    assert old in text, text\n"
        "    text = text.replace(old, new)\n"
        "path.write_text(text)\n"
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {program}")
    return tmp_path / "change"


@pytest.mark.usefixtures("dataset")
def test_accepted_rows_are_written_as_they_are_and_rejected_ones_are_not(runner: CliRunner) -> None:
    result = curate(runner, "araa")
    assert result.exit_code == 0, result.output
    lines = Path("rows.jsonl").read_bytes().splitlines()
    assert Path("rows.curated.jsonl").read_bytes().splitlines() == [lines[0], lines[2], lines[3]]
    assert "3 accepted, 1 rejected" in result.output


@pytest.mark.usefixtures("dataset")
def test_the_next_sitting_goes_on_where_the_last_one_ended(runner: CliRunner) -> None:
    first = curate(runner, "aq")
    assert "3 rows of rows.jsonl are not decided" in first.output
    second = curate(runner, "rr")  # the input ends before the last row
    assert "question 1?" not in second.output and "question 2?" in second.output
    assert curated() == [ROWS[0]]
    curate(runner, "a")
    assert curated() == [ROWS[0], ROWS[3]]
    assert "question" not in curate(runner, "").output


@pytest.mark.usefixtures("dataset")
def test_decisions_stay_with_their_rows_when_the_file_changes(runner: CliRunner) -> None:
    curate(runner, "ra")
    write(Path("rows.jsonl"), [chat("new?", "new"), *ROWS])
    result = curate(runner, "a")
    assert "new?" in result.output
    assert curated() == [chat("new?", "new"), ROWS[1]]


@pytest.mark.usefixtures("dataset")
def test_a_decision_that_was_half_written_is_asked_for_again(runner: CliRunner) -> None:
    curate(runner, "ar")
    journal = Path("rows.curation.jsonl")
    journal.write_bytes(journal.read_bytes()[:-5])
    result = curate(runner, "aq")
    assert "question 1?" not in result.output
    assert curated() == ROWS[:2]


@pytest.mark.usefixtures("dataset")
def test_a_damaged_journal_is_named_with_its_line(runner: CliRunner) -> None:
    curate(runner, "ar")
    journal = Path("rows.curation.jsonl")
    journal.write_text("what?\n" + journal.read_text())
    result = curate(runner, "a")
    assert result.exit_code == 1
    assert "line 1 of rows.curation.jsonl" in result.output and "delete the line" in result.output


@pytest.mark.usefixtures("dataset")
def test_a_row_can_be_gone_back_to_and_decided_anew(runner: CliRunner) -> None:
    curate(runner, "rbaq")
    assert curated() == ROWS[:1]
    again = curate(runner, "raq", "--again")
    assert "accepted before" in again.output
    assert curated() == [ROWS[1]]


@pytest.mark.usefixtures("dataset")
def test_what_a_key_does_not_know_decides_nothing(runner: CliRunner) -> None:
    curate(runner, ["x", "", "s", "q"])  # type: ignore[arg-type]
    assert curated() == []


def test_an_edited_row_is_written_as_it_was_edited(runner: CliRunner, dataset: Path, editor: Path) -> None:
    write(dataset, [chat("where?", "First line.\nSecond: line.\n  - indented", note="kept"), ROWS[1]])
    editor.write_text(json.dumps({"First line.": "A better line: yes."}))
    curate(runner, "eq")
    assert curated() == [chat("where?", "A better line: yes.\nSecond: line.\n  - indented", note="kept")]


@pytest.mark.usefixtures("dataset")
def test_an_edit_with_an_error_is_said_and_not_kept(runner: CliRunner, editor: Path) -> None:
    editor.write_text(json.dumps({"role: assistant": "role: robot"}))
    result = curate(runner, "eq")
    assert "messages[1].role" in result.output and "edit again, or reject the row" in result.output
    assert curated() == []
    editor.write_text(json.dumps({"messages:": "messages: ["}))
    assert "not YAML" in curate(runner, "eq").output


@pytest.mark.usefixtures("dataset")
def test_an_editor_that_is_not_there_is_named(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "no-such-editor")
    assert "no-such-editor" in curate(runner, "eq").output


def test_findings_stand_beside_their_rows_and_a_row_with_an_error_is_not_accepted(
    runner: CliRunner, dataset: Path
) -> None:
    wrong = {"messages": [{"role": "user", "content": "unanswered"}]}
    write(dataset, [ROWS[0], wrong, ROWS[0], ROWS[1]])
    result = curate(runner, "aarra")
    about_wrong, about_copy = result.output.split("line 2")[1].split("line 3")
    assert "error: " in about_wrong and "cannot be accepted" in about_wrong
    assert "same example as line 1" in about_copy
    assert curated() == [ROWS[0], ROWS[1]]


def test_clean_rows_can_be_accepted_at_once(runner: CliRunner, dataset: Path) -> None:
    write(dataset, [*ROWS, ROWS[0]])
    result = curate(runner, "r", "--accept-clean")
    assert "4 rows without findings are accepted" in result.output
    assert "row 5 of 5 (line 5)" in result.output and "question 2?" not in result.output
    assert curated() == ROWS


def test_a_line_that_is_no_json_is_shown_and_can_be_rejected(runner: CliRunner, dataset: Path) -> None:
    dataset.write_text('\ufeff{"messages": [}\n\n' + json.dumps(ROWS[0]) + "\r\n", encoding="utf-8")
    result = curate(runner, "raq")
    assert "not valid JSON" in result.output and "row 2 of 2 (line 3)" in result.output
    assert curated() == [ROWS[0]]


def test_escape_sequences_of_a_row_do_not_reach_the_terminal(runner: CliRunner, dataset: Path) -> None:
    write(dataset, [chat("\x1b[2J[bold]?", "fine", **{"\x1bkey": "\x1b]0;title\x07"})])
    result = curate(runner, "a")
    assert "\x1b" not in result.output and "\x07" not in result.output
    assert "[bold]?" in result.output


def test_preference_and_completion_rows_are_shown_whole(runner: CliRunner, dataset: Path) -> None:
    pair = {
        "input": {"messages": [{"role": "user", "content": "which?"}]},
        "preferred_completion": [{"role": "assistant", "content": "the good one"}],
        "non_preferred_completion": [{"role": "assistant", "content": "the other"}],
    }
    write(dataset, [pair])
    shown = curate(runner, "a").output
    assert all(text in shown for text in ("which?", "the good one", "the other", "not preferred"))
    write(dataset, [{"prompt": "two and two", "completion": "four"}])
    shown = curate(runner, "a").output
    assert "two and two" in shown and "four" in shown


def test_a_file_that_is_none_of_jsonl_is_refused(runner: CliRunner, dataset: Path) -> None:
    dataset.write_bytes(b"PAR1 and more")
    result = curate(runner, "a")
    assert result.exit_code == 1 and "Parquet" in result.output
    assert not Path("rows.curation.jsonl").exists()


@pytest.mark.usefixtures("dataset")
def test_the_dataset_itself_is_never_overwritten(runner: CliRunner) -> None:
    result = curate(runner, "a", "--out", "rows.jsonl")
    assert result.exit_code == 1 and "is the dataset itself" in result.output
